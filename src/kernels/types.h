// Types that the kernels and their callers share. Kernels depend on no framework.
#pragma once

#include <cstdint>

namespace wavroute::kernels {

// Storage of a bfloat16: the upper half of a float. All arithmetic is in float, with the exception
// in attention_amx.cpp.
struct Bf16 {
  uint16_t bits;
};

// A pair of tables, by type.
template <template <typename> class Table>
struct ByType {
  Table<float> fp32;
  Table<Bf16> bf16;
  template <typename T>
  [[nodiscard]] const Table<T>& of() const {
    if constexpr (sizeof(T) == sizeof(float)) {
      return fp32;
    } else {
      return bf16;
    }
  }
};

}  // namespace wavroute::kernels
