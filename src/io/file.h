// Files: reading, mapping, hashing, locking, and writing so that nothing is ever lost.
//
// Every failed system call becomes an Error that names the path and the system's words: a
// UserError where another path would help (missing, not permitted, not a folder), else a Failure
// (full disk, broken device).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace wavroute {

// Throws the Error for a failed system call: "cannot ACTION PATH: the system's words".
[[noreturn]] void throw_system_error(std::string_view action, const std::filesystem::path& path,
                                     int error_number);

// An open file descriptor, closed on destruction. -1 = none.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int number) noexcept : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept;
  ~Descriptor() { reset(); }

  [[nodiscard]] int get() const noexcept { return number_; }
  [[nodiscard]] int release() noexcept;
  void reset() noexcept;

 private:
  int number_ = -1;
};

// Writes all of `bytes`, however often the system stops early. Errors name `path`.
void write_all(const Descriptor& file, std::span<const std::byte> bytes,
               const std::filesystem::path& path);

// Opens a regular file to read, `bytes` long. A folder, device or pipe is a UserError: these may
// have no end.
[[nodiscard]] Descriptor open_regular(const std::filesystem::path& path, uint64_t& bytes);

// The whole content of a regular file. One of more than `most` bytes is a UserError, and no more
// than that is ever held.
[[nodiscard]] std::string read_file(const std::filesystem::path& path, uint64_t most = UINT64_MAX);

// Whether anything is there, links followed. If the system can't tell (no permission, a broken
// device), that is an Error, not false.
[[nodiscard]] bool is_there(const std::filesystem::path& path);

// The names in a folder, sorted; none where there is no such folder.
[[nodiscard]] std::vector<std::string> list_folder(const std::filesystem::path& folder);

// Makes a folder and its missing parents, and makes their names durable.
void make_folders(const std::filesystem::path& folder);

// As make_folders; those that it made and that are empty when this object ends are removed again.
class MadeFolders {
 public:
  explicit MadeFolders(const std::filesystem::path& folder);
  MadeFolders(const MadeFolders&) = delete;
  MadeFolders& operator=(const MadeFolders&) = delete;
  ~MadeFolders() { remove_empty(); }

  // Whether the folder itself was made.
  [[nodiscard]] bool made() const noexcept { return !made_.empty(); }

 private:
  void remove_empty() const noexcept;

  std::vector<std::filesystem::path> made_;  // the innermost first
};

// Makes the names inside a folder durable (fsync).
void sync_folder(const std::filesystem::path& folder);

// Makes the content of a file durable (fsync).
void sync_file(const std::filesystem::path& path);

// Removes a file or a whole folder; links are removed, not followed. A missing path is not an
// error.
void remove_tree(const std::filesystem::path& path);

// A name for a temporary file that no other program uses and no other call returns:
// ".wavroute-tmp-LABEL-PLACE-PID-START-COUNT" (process_identity.h). Readers skip such names.
[[nodiscard]] std::string temporary_name(std::string_view label);

// Removes from `folder` what temporary_name named (for `label`, where one is given) and a process
// that is known to be dead left behind. Returns what is left: those whose maker isn't known here
// (of another host or container, or from before this machine started), and what can't be removed.
std::vector<std::filesystem::path> remove_stale_temporaries(const std::filesystem::path& folder,
                                                            std::string_view label = {});

// Where a link leads, for an output that the user named; any other path is returned unchanged.
[[nodiscard]] std::filesystem::path followed_link(const std::filesystem::path& path);

// Prepares a file that is appended to: one that is a link, or has a second name (hard link),
// becomes a file of its own with the same content, so that nothing outside the folder is written.
// UserError for a folder, device or pipe. A missing file needs no preparation.
void detach_file(const std::filesystem::path& path);

// A file that appears under its name complete or not at all: written under a temporary name in the
// same folder, then fsync, rename, fsync of the folder. Without commit() the old file remains. A
// link is replaced, not followed (followed_link is for callers that want that).
class AtomicFile {
 public:
  // Refuses a path that is there but neither a regular file nor a link (a folder, a device).
  explicit AtomicFile(const std::filesystem::path& path);
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();

  // Not buffered: give it large pieces.
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  // Also removes what killed processes left of the same name.
  void commit();

 private:
  std::filesystem::path path_;
  std::filesystem::path temporary_;  // empty once committed
  Descriptor file_;
};

void write_file_atomic(const std::filesystem::path& path, std::string_view content);

// SHA-256, fed in pieces.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  void update(std::span<const std::byte> bytes);
  void update(std::string_view text) { update(std::as_bytes(std::span(text))); }
  // The digest of everything so far, 64 lower-case hexadecimal digits. The object can't be used
  // afterwards.
  [[nodiscard]] std::string hex();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

[[nodiscard]] std::string sha256_hex(std::span<const std::byte> bytes);
[[nodiscard]] std::string sha256_hex(std::string_view text);
[[nodiscard]] std::string sha256_file(const std::filesystem::path& path);

// A regular file, mapped read-only. The mapping outlives a rename or removal of the file. If the
// file is cut short while it is mapped, or its disk fails, reading ends the process with exit code
// 1 and a message that names it (the system sends SIGBUS, and no exception can leave its handler);
// our own files only ever appear by rename.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return bytes_; }
  [[nodiscard]] std::string_view text() const noexcept {
    return {reinterpret_cast<const char*>(bytes_.data()), bytes_.size()};
  }

 private:
  std::span<const std::byte> bytes_;
};

// Holds a folder for this process (flock on FOLDER/.lock) until destruction or the end of the
// process, however it ends. A folder that another holder has is a UserError that names its
// process. Where the file system has no flock, FOLDER/.lock-holder keeps others out and names its
// holder; one that a dead process of this machine left is taken over, by one process at a time
// (.lock-takeover).
class FileLock {
 public:
  // As flock(2).
  using Flock = int (*)(int file, int operation);

  explicit FileLock(const std::filesystem::path& folder, Flock flock = nullptr);
  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&&) = delete;
  ~FileLock();

  // A note for the user; usually empty.
  [[nodiscard]] const std::string& warning() const noexcept { return warning_; }
  // Takes FOLDER/.lock away again if this object made it, and gives the lock up.
  void remove_if_made() noexcept;

 private:
  void hold_by_file(int flock_error);
  void release_holder() noexcept;

  std::filesystem::path folder_;
  Descriptor file_;
  std::filesystem::path holder_;  // empty unless this lock is FOLDER/.lock-holder
  std::string warning_;
  bool made_ = false;
};

// Whether some process holds `folder` by a FileLock now. Nothing where that can't be told from
// here: a lock that may not be opened.
[[nodiscard]] std::optional<bool> is_held(const std::filesystem::path& folder,
                                          FileLock::Flock flock = nullptr);

}  // namespace wavroute
