#include "io/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <system_error>
#include <utility>
#include <vector>

#include "io/link.h"
#include "wavroute/error.h"

namespace wavroute {
namespace fs = std::filesystem;
namespace {

Descriptor open_or_throw(std::string_view action, const fs::path& path, int flags) {
  Descriptor file(::open(path.c_str(), flags | O_CLOEXEC, 0666));
  if (file.get() < 0) throw_system_error(action, path, errno);
  return file;
}

fs::path folder_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

// Calls visit(bytes) with the content, piece by piece.
template <class Visit>
void read_pieces(const Descriptor& file, const fs::path& path, Visit&& visit) {
  std::vector<char> buffer(size_t{1} << 18);
  for (;;) {
    const ssize_t count = ::read(file.get(), buffer.data(), buffer.size());
    if (count == 0) return;
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw_system_error("read", path, errno);
    visit(std::string_view(buffer.data(), static_cast<size_t>(count)));
  }
}

}  // namespace

void throw_system_error(std::string_view action, const fs::path& path, int error_number) {
  const std::string what = fmt::format("cannot {} {}: {}", action, path.string(),
                                       std::generic_category().message(error_number));
  switch (error_number) {
    case ENOSPC:
    case EDQUOT:
      throw Failure(what, "free some space, or choose another folder with --out");
    case EFBIG:
      throw Failure(what,
                    "raise the limit on a file's size (ulimit -f), or choose another file "
                    "system with --out");
    case ENOENT:
    case ENOTDIR:
    case EISDIR:
    case ELOOP:
    case ENAMETOOLONG:
      throw UserError(what, "check the path");
    case EACCES:
    case EPERM:
    case EROFS:
      throw UserError(what, "change its permissions, or choose another place");
    case EMFILE:
    case ENFILE:
      throw Failure(what, "close other programs, or raise the limit on open files (ulimit -n)");
    case ENOMEM:
      throw Failure(what, "close other programs, then try again");
    case EIO:
      throw Failure(what, "the device reports an error: see the system's log (dmesg)");
    default:
      throw Failure(what, "nothing was changed by this; try again, or choose another place");
  }
}

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (this != &other) {
    reset();
    number_ = other.release();
  }
  return *this;
}

int Descriptor::release() noexcept { return std::exchange(number_, -1); }

void Descriptor::reset() noexcept {
  if (number_ >= 0) ::close(release());
}

void write_all(const Descriptor& file, std::span<const std::byte> bytes, const fs::path& path) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(file.get(), bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw_system_error("write", path, errno);
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
}

Descriptor open_regular(const fs::path& path, uint64_t& bytes) {
  // Without O_NONBLOCK a pipe without a writer would block here.
  Descriptor file = open_or_throw("open", path, O_RDONLY | O_NONBLOCK);
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) throw_system_error("read", path, errno);
  if (S_ISDIR(status.st_mode)) throw_system_error("read", path, EISDIR);
  if (!S_ISREG(status.st_mode)) {
    throw expected("a regular file", "a device or pipe", fmt::format("at {}", path.string()),
                   "write its content to a file first");
  }
  bytes = static_cast<uint64_t>(status.st_size);
  return file;
}

std::string read_file(const fs::path& path, uint64_t most) {
  const auto check = [&](uint64_t bytes) {
    if (bytes <= most) return;
    throw expected(fmt::format("a file of at most {} bytes", most), bytes,
                   fmt::format("at {}", path.string()), "no file of this kind is that large");
  };
  uint64_t bytes = 0;
  const Descriptor file = open_regular(path, bytes);
  check(bytes);
  std::string content;
  read_pieces(file, path, [&](std::string_view piece) {  // it may grow, and /proc says 0
    check(content.size() + piece.size());
    content.append(piece);
  });
  return content;
}

// By read(2), not by a mapping: a device that fails while a mapping is read is fatal (SIGBUS).
std::string sha256_file(const fs::path& path) {
  uint64_t bytes = 0;
  Sha256 sha;
  read_pieces(open_regular(path, bytes), path, [&](std::string_view piece) { sha.update(piece); });
  return sha.hex();
}

bool is_there(const fs::path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0) return true;
  if (errno != ENOENT && errno != ENOTDIR) throw_system_error("look at", path, errno);
  return false;
}

std::vector<std::string> list_folder(const fs::path& folder) {
  struct Close {
    void operator()(DIR* stream) const noexcept { ::closedir(stream); }
  };
  std::vector<std::string> names;
  const std::unique_ptr<DIR, Close> stream(::opendir(folder.c_str()));
  if (!stream) {
    if (errno == ENOENT) return names;
    throw_system_error("list", folder, errno);
  }
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(stream.get());
    if (entry == nullptr && errno != 0) throw_system_error("list", folder, errno);
    if (entry == nullptr) break;
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  std::ranges::sort(names);
  return names;
}

void make_folders(const fs::path& folder) {
  std::error_code error;
  if (fs::is_directory(folder, error)) return;
  if (const fs::path parent = folder_of(folder); parent != folder) make_folders(parent);
  if (::mkdir(folder.c_str(), 0777) != 0) {
    const int mkdir_error = errno;
    if (fs::is_directory(folder, error)) return;  // another process was faster; or "a/" after "a"
    throw_system_error("make the folder", folder, mkdir_error == EEXIST ? ENOTDIR : mkdir_error);
  }
  sync_folder(folder_of(folder));
}

MadeFolders::MadeFolders(const fs::path& folder) {
  std::error_code ignored;
  for (fs::path path = folder; !path.empty() && !fs::exists(path, ignored);
       path = path.parent_path()) {
    if (path.has_filename()) made_.push_back(path);  // not "a/" before "a"
  }
  try {
    make_folders(folder);
  } catch (const Error&) {
    remove_empty();
    throw;
  }
}

void MadeFolders::remove_empty() const noexcept {
  for (const fs::path& path : made_) ::rmdir(path.c_str());
}

void sync_folder(const fs::path& folder) {
  const Descriptor file = open_or_throw("open the folder", folder, O_RDONLY | O_DIRECTORY);
  // EINVAL: a file system that has no such thing as syncing a folder.
  if (::fsync(file.get()) != 0 && errno != EINVAL) throw_system_error("sync", folder, errno);
}

void sync_file(const fs::path& path) {
  const Descriptor file = open_or_throw("open", path, O_RDONLY);
  if (::fsync(file.get()) != 0) throw_system_error("sync", path, errno);
}

void remove_tree(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) throw_system_error("remove", path, error.value());
}

fs::path followed_link(const fs::path& path) {
  constexpr int kMostLinks = 40;  // as the system counts
  fs::path at = path;
  for (int count = 0; count < kMostLinks; ++count) {
    std::error_code error;
    const fs::path target = fs::read_symlink(at, error);
    if (error) return at;
    at = folder_of(at) / target;  // an absolute target replaces the folder
  }
  throw_system_error("follow the link", path, ELOOP);
}

void refuse_link(const fs::path& path, std::string_view expected, const std::string& hint) {
  std::error_code ignored;
  if (!fs::is_symlink(fs::symlink_status(path, ignored))) return;
  throw wavroute::expected(expected, "a link", fmt::format("at {}", path.string()), hint);
}

void detach_file(const fs::path& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) {
    if (errno == ENOENT) return;
    throw_system_error("look at", path, errno);
  }
  if (S_ISREG(status.st_mode) && status.st_nlink == 1) return;
  // The content is copied: what was read through a link must not be lost.
  write_file_atomic(path, S_ISLNK(status.st_mode) && !is_there(path) ? "" : read_file(path));
}

AtomicFile::AtomicFile(const fs::path& path) : path_(path) {
  struct stat status {};
  if (::lstat(path_.c_str(), &status) == 0) {
    if (S_ISDIR(status.st_mode)) throw_system_error("write", path_, EISDIR);
    if (!S_ISREG(status.st_mode) && !S_ISLNK(status.st_mode)) {
      // Root may rename over /dev/null, and would.
      throw expected("a regular file to write", "a device or pipe",
                     fmt::format("at {}", path_.string()), "choose the name of a file");
    }
  }
  temporary_ = folder_of(path_) / temporary_name(path_.filename().native());
  file_ = Descriptor(::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
  if (file_.get() >= 0) return;
  const int open_error = errno;
  temporary_.clear();
  throw_system_error("create", path_, open_error);
}

AtomicFile::~AtomicFile() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) { write_all(file_, bytes, path_); }

void AtomicFile::commit() {
  if (::fsync(file_.get()) != 0) throw_system_error("sync", path_, errno);
  if (::close(file_.release()) != 0) throw_system_error("close", path_, errno);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) throw_system_error("write", path_, errno);
  temporary_.clear();
  sync_folder(folder_of(path_));
  try {
    (void)remove_stale_temporaries(folder_of(path_), path_.filename().native());
  } catch (
      const Error&) {  // the file is written; a folder that can't be listed is no reason to fail
  }
}

void write_file_atomic(const fs::path& path, std::string_view content) {
  AtomicFile file(path);
  file.write(content);
  file.commit();
}

}  // namespace wavroute
