// The message for a mapped file that can no longer be read.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace wavroute {

// From now on a SIGBUS within `bytes` ends the process with exit code 1 and a message that names
// `path`. Any other SIGBUS is handled as before. At most 64 ranges at a time are remembered; beyond
// that, only the system's own message appears.
void remember_mapped_range(std::span<const std::byte> bytes, const std::string& path);
void forget_mapped_range(const std::byte* begin) noexcept;

}  // namespace wavroute
