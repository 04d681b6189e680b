// Safetensors files made by hand: the length, a header given as text, and the data.
#pragma once

#include <cstdint>
#include <string>

namespace wavroute::testing {

inline std::string little_endian(uint64_t value) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>((value >> (8 * i)) & 0xff);
  return bytes;
}

inline std::string safetensors_bytes(const std::string& header, const std::string& data) {
  return little_endian(header.size()) + header + data;
}

}  // namespace wavroute::testing
