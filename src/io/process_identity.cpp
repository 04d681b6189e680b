#include "io/process_identity.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <limits>
#include <string>

#include "io/file.h"

namespace wavroute {
namespace {

constexpr size_t kPlaceDigits = 16;
const std::string kUnknownPlace(kPlaceDigits, '0');

// A small file of /proc; empty where it can't be read.
std::string read_proc(const std::string& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 1024> buffer{};
  const ssize_t count = file.get() < 0 ? 0 : ::read(file.get(), buffer.data(), buffer.size());
  return {buffer.data(), static_cast<size_t>(std::max<ssize_t>(count, 0))};
}

std::string read_link(const char* path) {
  std::array<char, 128> buffer{};
  const ssize_t count = ::readlink(path, buffer.data(), buffer.size());
  return {buffer.data(), static_cast<size_t>(std::max<ssize_t>(count, 0))};
}

std::string find_place() {
  const std::string boot = read_proc("/proc/sys/kernel/random/boot_id");
  const std::string processes = read_link("/proc/self/ns/pid");
  if (boot.empty() || processes.empty()) return kUnknownPlace;
  // A time namespace moves the starts of processes.
  return sha256_hex(boot + processes + read_link("/proc/self/ns/time")).substr(0, kPlaceDigits);
}

// Field 22 of /proc/PID/stat (proc_pid_stat(5)); 0 where it can't be read.
uint64_t start_of(int64_t pid) {
  constexpr int kFieldsBehindTheName = 20;
  const std::string stat = read_proc(fmt::format("/proc/{}/stat", pid));
  size_t at = stat.rfind(')');  // the program's name before it may contain any character
  if (at == stat.npos) return 0;
  for (int field = 0; field < kFieldsBehindTheName; ++field) {
    at = stat.find(' ', at + 1);
    if (at == stat.npos) return 0;
  }
  uint64_t start = 0;
  std::from_chars(stat.data() + at + 1, stat.data() + stat.size(), start);
  return start;
}

// A decimal number in the form that we write; false for "007", "+7", "7x" and the like.
template <class Number>
bool parse_number(std::string_view text, Number& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() && number >= 0 &&
         std::to_string(number) == text;
}

}  // namespace

std::string ProcessIdentity::text() const { return fmt::format("{}-{}-{}", place, pid, start); }

ProcessIdentity ProcessIdentity::parse(std::string_view text) {
  constexpr std::string_view kHexadecimal = "0123456789abcdef";
  ProcessIdentity process;
  const size_t second = text.rfind('-');
  if (text.size() <= kPlaceDigits || text[kPlaceDigits] != '-' || second == kPlaceDigits ||
      text.find_first_not_of(kHexadecimal) != kPlaceDigits) {
    return {};
  }
  process.place = text.substr(0, kPlaceDigits);
  const std::string_view pid = text.substr(kPlaceDigits + 1, second - kPlaceDigits - 1);
  if (!parse_number(pid, process.pid) || process.pid > std::numeric_limits<pid_t>::max() ||
      !parse_number(text.substr(second + 1), process.start)) {
    return {};
  }
  return process;
}

ProcessIdentity this_process() {
  static const std::string place = find_place();
  const auto pid = static_cast<int64_t>(::getpid());  // differs after a fork
  return {place, pid, start_of(pid)};
}

bool is_known_dead(const ProcessIdentity& process) {
  const ProcessIdentity self = this_process();
  if (process.place == kUnknownPlace || process.place != self.place || process.pid <= 0) {
    return false;
  }
  if (::kill(static_cast<pid_t>(process.pid), 0) != 0 && errno == ESRCH) return true;
  const uint64_t start = start_of(process.pid);  // of the process that has this number now
  return start != 0 && process.start != 0 && start != process.start;
}

std::string host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0 || name[0] == '\0') return "unknown";
  return name.data();
}

}  // namespace wavroute
