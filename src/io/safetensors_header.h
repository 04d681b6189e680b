// The JSON header of a safetensors file, parsed without trusting any of it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "wavroute/safetensors.h"

namespace wavroute {

struct HeaderEntry {
  std::string name;
  Dtype dtype = Dtype::kF32;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // byte offsets into the data after the header
};

struct SafetensorsHeader {
  std::vector<HeaderEntry> entries;  // in the order of their bytes
  std::map<std::string, std::string> metadata;
};

// What is wrong with a header: "expected ..., given ..."; the reader adds the file's name.
class HeaderError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Parses and checks the header of a file with `data_bytes` bytes after it.
[[nodiscard]] SafetensorsHeader parse_safetensors_header(std::string_view text,
                                                         uint64_t data_bytes);

// elements * dtype_size; nullopt where that does not fit in 64 bits or a dimension is negative.
[[nodiscard]] std::optional<uint64_t> tensor_bytes(Dtype dtype, std::span<const int64_t> shape);

[[nodiscard]] std::optional<Dtype> parse_dtype(std::string_view name);

}  // namespace wavroute
