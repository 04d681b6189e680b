#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "io/file.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

// "process 1234", as the holder wrote it; it may not have come to that yet.
std::string holder_of(const Descriptor& file) {
  std::array<char, 32> digits{};
  const ssize_t count = ::pread(file.get(), digits.data(), digits.size(), 0);
  if (count <= 0) return "another process";
  return fmt::format("process {}", std::string_view(digits.data(), static_cast<size_t>(count)));
}

}  // namespace

FileLock::FileLock(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / ".lock";
  file_ = Descriptor(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
  if (file_.get() < 0) throw_system_error("lock", path, errno);
  if (::flock(file_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) throw_system_error("lock", path, errno);
    throw UserError(fmt::format("expected a free folder, but {} is using {}", holder_of(file_),
                                folder.string()),
                    "wait until it ends, stop it, or choose another folder with --out");
  }
  // The file stays for good: removing it would let two processes lock two files of one name.
  const std::string digits = std::to_string(::getpid());
  if (::ftruncate(file_.get(), 0) != 0) throw_system_error("lock", path, errno);
  write_all(file_, std::as_bytes(std::span(digits)), path);
}

}  // namespace wavroute
