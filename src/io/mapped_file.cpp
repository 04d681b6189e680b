#include "io/mapped_pages.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
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

void release_pages(std::span<const std::byte> bytes) noexcept {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(bytes.data()), end = begin + bytes.size();
  const uintptr_t first = (begin + page - 1) / page * page, last = end / page * page;
  // Neighbours share the pages at the ends.
  if (first >= last) return;
  auto* const start = const_cast<std::byte*>(bytes.data()) + (first - begin);
  ::madvise(start, last - first, MADV_DONTNEED);
}

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
