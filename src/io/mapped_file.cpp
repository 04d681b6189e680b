#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <utility>

#include "io/file.h"
#include "io/mapped_ranges.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

void unmap(std::span<const std::byte> bytes) {
  // munmap takes a non-const pointer, though it writes nothing.
  if (bytes.empty()) return;
  forget_mapped_range(bytes.data());
  ::munmap(const_cast<std::byte*>(bytes.data()), bytes.size());
}

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) throw_system_error("open", path, errno);
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) throw_system_error("read", path, errno);
  if (S_ISDIR(status.st_mode)) throw_system_error("read", path, EISDIR);
  if (!S_ISREG(status.st_mode)) {
    throw UserError(
        fmt::format("expected a regular file, found a device or pipe, at {}", path.string()),
        "write its content to a file first");
  }
  if (status.st_size == 0) return;  // the system maps no empty range
  const auto size = static_cast<size_t>(status.st_size);
  void* start = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (start == MAP_FAILED) throw_system_error("map", path, errno);
  bytes_ = {static_cast<const std::byte*>(start), size};
  remember_mapped_range(bytes_, path.string());
}

MappedFile::MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  if (this != &other) {
    unmap(bytes_);
    bytes_ = std::exchange(other.bytes_, {});
  }
  return *this;
}

MappedFile::~MappedFile() { unmap(bytes_); }

}  // namespace wavroute
