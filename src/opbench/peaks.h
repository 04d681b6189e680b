// The peak speeds of this machine, which operators are compared with.
#pragma once

#include <ATen/core/ScalarType.h>

#include <optional>

namespace wavroute::opbench {

// FLOP/s of the best of several matrix products, square ones and those of a model; float or
// bfloat16, with the current number of threads.
[[nodiscard]] double measure_product(at::ScalarType type);

// Bytes read plus bytes written per second of copies by all threads: between two buffers of 256 MB,
// and within 1 MB of each thread's own.
[[nodiscard]] double measure_memory_copy();
[[nodiscard]] double measure_cache_copy();

// Bytes per second of all threads that add up 256 MB on huge pages, as decoding reads weights.
[[nodiscard]] double measure_memory_read();

// Each is measured on first use.
class Peaks {
 public:
  [[nodiscard]] double memory_copy();
  [[nodiscard]] double memory_read();
  [[nodiscard]] double product(at::ScalarType type);

 private:
  std::optional<double> memory_copy_, memory_read_, product_fp32_, product_bf16_;
};

}  // namespace wavroute::opbench
