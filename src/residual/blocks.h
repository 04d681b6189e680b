// How M sublayers form N blocks (method.md section 3).
#pragma once

#include <cstdint>

#include "wavroute/options.h"

namespace wavroute {

struct Blocks {
  int64_t count = 1;      // N
  int64_t length = 1;     // K = ceil(M / N)
  int64_t sublayers = 1;  // M

  [[nodiscard]] int64_t block_of(int64_t sublayer) const { return sublayer / length; }
  // From 0.
  [[nodiscard]] int64_t position_of(int64_t sublayer) const { return sublayer % length; }
  // K, or fewer for the last block.
  [[nodiscard]] int64_t length_of(int64_t block) const;
};

// The default [ours]: the largest N <= 6 that divides M with M/N a multiple of 4, else even.
[[nodiscard]] Blocks default_blocks(const ModelSize& size);

// From the option `blocks` ("auto" or a count). Throws UserError that names the nearest counts that
// are valid: ceil(M / ceil(M / N)) = N and, with `even_length`, K even.
[[nodiscard]] Blocks resolve_blocks(const OptionValue& option, const ModelSize& size,
                                    bool even_length);

// The option `blocks` of every scheme that has them.
[[nodiscard]] OptionSpec blocks_option();

}  // namespace wavroute
