// The memory that a mapped file takes.
#pragma once

#include <cstddef>
#include <span>

namespace wavroute {

// Gives back the memory of `bytes`, a part of a file that is mapped to be read: they can still be
// read, from the file again. A large file is then never in memory as a whole.
void release_pages(std::span<const std::byte> bytes) noexcept;

}  // namespace wavroute
