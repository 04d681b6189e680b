#include <sys/mman.h>

#include <cerrno>
#include <utility>

#include "io/file.h"
#include "io/mapped_ranges.h"

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
  uint64_t size = 0;
  const Descriptor file = open_regular(path, size);
  if (size == 0) return;  // the system maps no empty range
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
