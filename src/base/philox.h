// Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011).
//
// Every random number of the project is a pure function of (seed, purpose, stream, index):
// nothing depends on the order of calls and no generator state is ever saved.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace wavroute {

// The Philox4x32-10 block function: 128 random bits from a 128-bit counter and a 64-bit key.
[[nodiscard]] std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter,
                                                 std::array<uint32_t, 2> key) noexcept;

// A family of random streams. `purpose` separates uses ("init", "order", "layerdrop", "sample");
// `name` separates streams of one purpose (a parameter's name, or empty).
class Philox {
 public:
  Philox(uint64_t seed, std::string_view purpose, std::string_view name = {}) noexcept;

  // 128 random bits of element `index` in sub-stream `stream` (a step, an epoch, a layer).
  [[nodiscard]] std::array<uint32_t, 4> bits(uint64_t index, uint64_t stream = 0) const noexcept;
  // Uniform in [0, 1), 53 bits.
  [[nodiscard]] double uniform(uint64_t index, uint64_t stream = 0) const noexcept;
  // Standard normal: Box-Muller; elements 2k and 2k+1 share one block of bits.
  [[nodiscard]] double normal(uint64_t index, uint64_t stream = 0) const noexcept;
  // Elements 2k and 2k+1, at the cost of one.
  [[nodiscard]] std::array<double, 2> normal_pair(uint64_t k, uint64_t stream = 0) const noexcept;

 private:
  std::array<uint32_t, 2> key_;
};

// FNV-1a, 64 bits: the hash that turns names into keys.
[[nodiscard]] uint64_t fnv1a(std::string_view text,
                             uint64_t basis = 0xcbf29ce484222325ULL) noexcept;

}  // namespace wavroute
