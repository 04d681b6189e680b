// What the reader and the writer of GGUF share.
#pragma once

#include <cstdint>
#include <string_view>

namespace wavroute {

inline constexpr std::string_view kGgufMagic = "GGUF";
inline constexpr int64_t kGgufAlignment = 32;  // of tensors, unless the metadata says another

// The kinds of values.
enum GgufKind : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64
};

}  // namespace wavroute
