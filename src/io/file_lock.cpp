#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "io/file.h"
#include "io/process_identity.h"
#include "wavroute/error.h"

namespace wavroute {
namespace fs = std::filesystem;
namespace {

constexpr const char* kLock = ".lock";
constexpr const char* kHolder = ".lock-holder";
constexpr const char* kTakeover = ".lock-takeover";
constexpr off_t kLongestContent = 1024;  // ours is shorter; anything longer is somebody's file
constexpr const char* kInUse = "wait until it ends, stop it, or choose another folder with --out";

// "PID HOST PLACE-PID-START", which a holder writes into its file.
std::string own_content() {
  const ProcessIdentity self = this_process();
  return fmt::format("{} {} {}\n", self.pid, host_name(), self.text());
}

std::string content_of(const Descriptor& file) {
  std::array<char, kLongestContent> content{};
  const ssize_t count = ::pread(file.get(), content.data(), content.size(), 0);
  return {content.data(), static_cast<size_t>(std::max<ssize_t>(count, 0))};
}

// "process 1234 on HOST"; a holder may not have written it yet.
std::string holder_in(const std::string& content) {
  const size_t pid = content.find_first_of(" \n"), host = content.find_first_of(" \n", pid + 1);
  if (content.empty()) return "another process";
  if (pid >= host) return "process " + content.substr(0, pid);  // as older versions wrote it
  return fmt::format("process {} on {}", content.substr(0, pid),
                     content.substr(pid + 1, host - pid - 1));
}

ProcessIdentity identity_in(const std::string& content) {
  const size_t end = content.find_last_not_of('\n') + 1;
  const size_t space = content.rfind(' ', end);
  if (end == 0 || space == content.npos) return {};
  return ProcessIdentity::parse(std::string_view(content).substr(space + 1, end - space - 1));
}

// Never opens a link, or a file that isn't a lock of ours, to overwrite it. Sets `made` where the
// file was not there.
Descriptor open_lock(const fs::path& path, bool& made) {
  constexpr int kFlags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
  Descriptor file;
  int open_error = ENOENT;
  while (file.get() < 0 && open_error == ENOENT) {  // removed between the two calls
    file = Descriptor(::open(path.c_str(), kFlags | O_CREAT | O_EXCL, 0666));
    made = file.get() >= 0;
    if (!made && errno == EEXIST) {
      file = Descriptor(::open(path.c_str(), kFlags));
      open_error = errno;
    } else {
      open_error = errno;
      break;
    }
  }
  struct stat status {};
  const bool opened = file.get() >= 0 && ::fstat(file.get(), &status) == 0;
  if (!opened && open_error != ELOOP) throw_system_error("lock", path, open_error);
  if (!opened || !S_ISREG(status.st_mode) || status.st_size > kLongestContent) {
    throw expected("a lock file of ours", opened ? "something else" : "a link",
                   fmt::format("at {}", path.string()),
                   "move it away, or choose another folder with --out");
  }
  return file;
}

bool is_same_file(const Descriptor& file, const fs::path& path) {
  struct stat held {
  }, named{};
  return ::fstat(file.get(), &held) == 0 && ::lstat(path.c_str(), &named) == 0 &&
         held.st_dev == named.st_dev && held.st_ino == named.st_ino;
}

bool has_no_flock(int error) {
  return error == ENOLCK || error == ENOSYS || error == EOPNOTSUPP || error == EINVAL;
}

constexpr int kHolderFlags = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;

// Makes a file that names this process. False where it can't be made; errno says why.
bool make_own(const fs::path& path) {
  const Descriptor made(::open(path.c_str(), kHolderFlags | O_WRONLY | O_CREAT | O_EXCL, 0666));
  if (made.get() < 0) return false;
  const std::string content = own_content();
  try {
    write_all(made, std::as_bytes(std::span(content)), path);
  } catch (...) {  // left there without a name in it, it would keep everybody out
    ::unlink(path.c_str());
    throw;
  }
  return true;
}

// As flock(2). A reader that looks whether the folder is held has the lock for microseconds.
int take(FileLock::Flock flock, const Descriptor& file) {
  constexpr int kTries = 5;
  constexpr std::chrono::milliseconds kPause(4);
  for (int i = 1;; ++i) {
    if (flock(file.get(), LOCK_EX | LOCK_NB) == 0) return 0;
    if (errno != EWOULDBLOCK || i == kTries) return -1;
    std::this_thread::sleep_for(kPause);
  }
}

// Its content; nothing where it isn't there.
std::optional<std::string> content_at(const fs::path& path) {
  const Descriptor file(::open(path.c_str(), kHolderFlags | O_RDONLY));
  if (file.get() >= 0) return content_of(file);
  if (errno == ENOENT) return std::nullopt;
  throw_system_error("lock", path, errno);
}

// Removes the holder's file if its maker is dead. Only who has made `takeover` may do so, and looks
// again then: the file may be a live one's by now.
bool take_over(const fs::path& holder, const fs::path& takeover) {
  const auto is_dead = [&] {
    const auto content = content_at(holder);
    return content && is_known_dead(identity_in(*content));
  };
  if (!is_dead() || !make_own(takeover)) return false;
  const bool removed = is_dead() && ::unlink(holder.c_str()) == 0;
  ::unlink(takeover.c_str());
  return removed;
}

}  // namespace

FileLock::FileLock(const fs::path& folder, Flock flock) : folder_(folder) {
  const fs::path path = folder / kLock;
  if (flock == nullptr) flock = ::flock;
  do {
    file_ = open_lock(path, made_);
    if (take(flock, file_) != 0) {
      const int flock_error = errno;
      if (flock_error == EWOULDBLOCK) {
        throw expected("a free folder",
                       fmt::format("one that {} is using", holder_in(content_of(file_))),
                       "at " + folder.string(), kInUse);
      }
      if (!has_no_flock(flock_error)) throw_system_error("lock", path, flock_error);
      hold_by_file(flock_error);
      return;
    }
    // Its holder may have removed the file in the meantime, with a folder that it had made.
  } while (!is_same_file(file_, path));
  if (::ftruncate(file_.get(), 0) != 0) throw_system_error("lock", path, errno);
  const std::string content = own_content();
  write_all(file_, std::as_bytes(std::span(content)), path);
}

void FileLock::hold_by_file(int flock_error) {
  const fs::path path = folder_ / kHolder, takeover = folder_ / kTakeover;
  while (!make_own(path)) {
    if (errno != EEXIST) throw_system_error("lock", path, errno);
    const auto content = content_at(path);
    if (!content || take_over(path, takeover)) continue;
    throw expected(
        "a free folder", fmt::format("one that {} is using", holder_in(*content)),
        "at " + folder_.string(),
        fmt::format("{}; if it has ended, remove {}{}", kInUse, path.string(),
                    is_there(takeover) ? fmt::format(" and {}", takeover.string()) : ""));
  }
  holder_ = path;
  warning_ = fmt::format(
      "this file system has no locks ({}): {} keeps other processes out of the "
      "folder",
      std::generic_category().message(flock_error), path.string());
}

FileLock::FileLock(FileLock&& other) noexcept
    : folder_(std::move(other.folder_)),
      file_(std::move(other.file_)),
      holder_(std::exchange(other.holder_, {})),
      warning_(std::move(other.warning_)),
      made_(std::exchange(other.made_, false)) {}

FileLock::~FileLock() { release_holder(); }

void FileLock::release_holder() noexcept {
  const fs::path holder = std::exchange(holder_, {});
  if (holder.empty()) return;
  // The user may have given the folder to another process, by removing the file.
  try {
    if (content_at(holder) == own_content()) ::unlink(holder.c_str());
  } catch (const std::exception&) {
  }
}

void FileLock::remove_if_made() noexcept {
  if (!std::exchange(made_, false)) return;
  release_holder();
  ::unlink((folder_ / kLock).c_str());
}

std::optional<bool> is_held(const fs::path& folder, FileLock::Flock flock) {
  constexpr int kFlags = kHolderFlags | O_RDONLY;
  const Descriptor lock(::open((folder / kLock).c_str(), kFlags));
  if (lock.get() < 0) return errno == ENOENT ? std::optional(false) : std::nullopt;
  // Shared, so that two readers see no holder in each other; given back at once.
  if ((flock == nullptr ? ::flock : flock)(lock.get(), LOCK_SH | LOCK_NB) == 0) return false;
  if (errno == EWOULDBLOCK) return true;
  if (!has_no_flock(errno)) return std::nullopt;
  const Descriptor holder(::open((folder / kHolder).c_str(), kFlags));
  if (holder.get() < 0) return errno == ENOENT ? std::optional(false) : std::nullopt;
  return !is_known_dead(identity_in(content_of(holder)));
}

}  // namespace wavroute
