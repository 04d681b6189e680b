// The types of ggml's tensors: blocks of numbers with scales of their own, as ggml-quants.c defines
// them (ggml.ai, MIT; the layouts are written down in PyPI's `gguf`, quants.py).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace wavroute {

// ggml's numbers of the types that are read here.
enum class GgmlType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kBF16 = 30,
};

struct GgmlLayout {
  int64_t numbers;  // of a block
  int64_t bytes;    // of a block
};
[[nodiscard]] GgmlLayout layout_of(GgmlType type);

// The type with this number of ggml's; nothing for one that isn't read.
[[nodiscard]] std::optional<GgmlType> ggml_type(uint32_t number);
// "Q4_K"; "type 99" for a number that ggml hasn't either.
[[nodiscard]] std::string ggml_type_name(uint32_t number);

// `bytes` are whole blocks, `out` as many numbers.
void dequantize(GgmlType type, std::span<const std::byte> bytes, std::span<float> out);

// The reverse for F32, F16, BF16 and Q8_0: what ggml's own reference writes, bit for bit. `in` is
// whole blocks.
[[nodiscard]] std::vector<std::byte> quantize(GgmlType type, std::span<const float> in);

}  // namespace wavroute
