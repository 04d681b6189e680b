#include "io/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <system_error>
#include <utility>
#include <vector>

#include "wavroute/error.h"

namespace wavroute {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kTemporaryPrefix = ".tmp-";

Descriptor open_or_throw(std::string_view action, const fs::path& path, int flags) {
  Descriptor file(::open(path.c_str(), flags | O_CLOEXEC, 0666));
  if (file.get() < 0) throw_system_error(action, path, errno);
  return file;
}

fs::path folder_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

// The process that a temporary name carries; -1 for a name that isn't one.
pid_t owner_of(std::string_view name) {
  if (!name.starts_with(kTemporaryPrefix)) return -1;
  const std::string_view digits = name.substr(name.rfind('-') + 1);
  pid_t owner = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), owner);
  return error == std::errc() && end == digits.data() + digits.size() && owner > 0 ? owner : -1;
}

bool is_stale(std::string_view name) {
  const pid_t owner = owner_of(name);
  return owner > 0 && (owner == ::getpid() || (::kill(owner, 0) != 0 && errno == ESRCH));
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
    default:
      throw Failure(what);
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

std::string read_file(const fs::path& path) {
  const Descriptor file = open_or_throw("open", path, O_RDONLY);
  std::string content;
  std::vector<char> buffer(1 << 16);
  for (;;) {
    const ssize_t count = ::read(file.get(), buffer.data(), buffer.size());
    if (count == 0) return content;
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw_system_error("read", path, errno);
    content.append(buffer.data(), static_cast<size_t>(count));
  }
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

std::string temporary_name(std::string_view label) {
  return fmt::format("{}{}-{}", kTemporaryPrefix, label, ::getpid());
}

void remove_stale_temporaries(const fs::path& folder) {
  std::vector<fs::path> stale;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (is_stale(entry.path().filename().native())) stale.push_back(entry.path());
  }
  if (error && error.value() != ENOENT) throw_system_error("list", folder, error.value());
  for (const fs::path& path : stale) remove_tree(path);
}

AtomicFile::AtomicFile(const fs::path& path) : path_(path) {
  std::error_code error;
  if (fs::is_symlink(path_, error)) path_ = fs::weakly_canonical(path_, error);
  const fs::file_status status = fs::status(path_, error);
  if (fs::is_directory(status)) throw_system_error("write", path_, EISDIR);
  if (fs::exists(status) && !fs::is_regular_file(status)) {
    // Root may rename over /dev/null, and would.
    throw UserError(fmt::format("expected a regular file to write, found a device or pipe, at {}",
                                path_.string()),
                    "choose the name of a file");
  }
  for (int attempt = 0; file_.get() < 0; ++attempt) {
    temporary_ =
        folder_of(path_) / temporary_name(fmt::format("{}-{}", path_.filename().string(), attempt));
    file_ = Descriptor(::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    if (file_.get() < 0 && errno != EEXIST) throw_system_error("create", path_, errno);
  }
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
}

void write_file_atomic(const fs::path& path, std::string_view content) {
  AtomicFile file(path);
  file.write(content);
  file.commit();
}

}  // namespace wavroute
