#include "io/mapped_ranges.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <mutex>
#include <string_view>

#include "base/printable.h"

namespace wavroute {
namespace {

constexpr size_t kMessageBytes = 512;

// One mapping. The handler reads it without a lock: `begin` is set last and cleared first.
struct Range {
  std::atomic<const std::byte*> begin = nullptr;
  std::atomic<size_t> size = 0;
  std::array<char, kMessageBytes> message{};
  std::atomic<size_t> message_size = 0;
};

std::array<Range, 64> ranges;
std::mutex ranges_lock;  // held while ranges are added or removed
struct sigaction before {};

// In a signal handler: no allocation, no lock, nothing but write(2) and _exit(2).
void say(const Range& range) {
  std::string_view rest(range.message.data(), range.message_size.load());
  while (!rest.empty()) {
    const ssize_t written = ::write(STDERR_FILENO, rest.data(), rest.size());
    if (written <= 0 && !(written < 0 && errno == EINTR)) return;
    rest.remove_prefix(static_cast<size_t>(std::max<ssize_t>(written, 0)));
  }
}

void on_bus_error(int /*signal*/, siginfo_t* info, void* /*context*/) {
  const bool is_sent = info->si_code <= 0;  // by a process: then it carries no address
  const auto* at = static_cast<const std::byte*>(info->si_addr);
  for (const Range& range : ranges) {
    const std::byte* begin = range.begin.load();
    if (is_sent || begin == nullptr || at < begin || at >= begin + range.size.load()) continue;
    say(range);
    ::_exit(1);
  }
  // Not ours: the previous handler gets the signal when the instruction runs again.
  ::sigaction(SIGBUS, &before, nullptr);
  if (is_sent) ::raise(SIGBUS);  // waits until this handler has returned
}

void install_handler() {
  struct sigaction action {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGBUS, &action, &before);
}

}  // namespace

void remember_mapped_range(std::span<const std::byte> bytes, const std::string& path) {
  static std::once_flag installed;
  std::call_once(installed, install_handler);
  constexpr std::string_view kBegin = "wavroute: cannot read ";
  constexpr std::string_view kEnd =
      ": it was cut short or its disk failed while it was read\n"
      "hint: put the file back whole, and run the command again\n";
  std::string name = terminal_text(path);
  const size_t room = kMessageBytes - kBegin.size() - kEnd.size();
  if (name.size() > room) name = "..." + name.substr(name.size() - (room - 3));
  const std::string message = std::string(kBegin) + name + std::string(kEnd);

  const std::lock_guard lock(ranges_lock);
  const auto slot = std::ranges::find_if(
      ranges, [](const Range& range) { return range.begin.load() == nullptr; });
  if (slot == ranges.end()) return;
  std::ranges::copy(message, slot->message.begin());
  slot->message_size = message.size();
  slot->size = bytes.size();
  slot->begin = bytes.data();
}

void forget_mapped_range(const std::byte* begin) noexcept {
  const std::lock_guard lock(ranges_lock);
  for (Range& range : ranges) {
    if (range.begin.load() == begin) range.begin = nullptr;
  }
}

}  // namespace wavroute
