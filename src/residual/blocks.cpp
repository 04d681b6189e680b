#include "residual/blocks.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <vector>

#include "wavroute/error.h"

namespace wavroute {
namespace {

constexpr int64_t kMostDefaultBlocks = 6;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool is_valid(int64_t sublayers, int64_t count, bool even_length) {
  const int64_t length = ceil_div(sublayers, count);
  return ceil_div(sublayers, length) == count && (!even_length || length % 2 == 0);
}

// The valid counts just below and just above `count`.
std::vector<int64_t> nearest_valid(int64_t sublayers, int64_t count, bool even_length) {
  std::vector<int64_t> nearest;
  for (int64_t n = std::min(count - 1, sublayers); n >= 1; --n) {
    if (is_valid(sublayers, n, even_length)) {
      nearest.push_back(n);
      break;
    }
  }
  for (int64_t n = std::max<int64_t>(count + 1, 1); n <= sublayers; ++n) {
    if (is_valid(sublayers, n, even_length)) {
      nearest.push_back(n);
      break;
    }
  }
  return nearest;
}

}  // namespace

int64_t Blocks::length_of(int64_t block) const {
  return std::min(length, sublayers - block * length);
}

Blocks default_blocks(const ModelSize& size) {
  const int64_t m = size.sublayers();
  for (const int64_t divisor : {4, 2}) {
    for (int64_t n = std::min(kMostDefaultBlocks, m); n >= 1; --n) {
      if (m % n == 0 && (m / n) % divisor == 0) return {n, m / n, m};
    }
  }
  return {1, m, m};
}

OptionSpec blocks_option() {
  return {"blocks",
          OptionType::kInt,
          std::string("auto"),
          "number of blocks N; auto: the largest N <= 6 that divides 2 layers with blocks of a "
          "multiple of 4 [ours]",
          true,
          {}};
}

Blocks resolve_blocks(const OptionValue& option, const ModelSize& size, bool even_length) {
  if (std::holds_alternative<std::string>(option)) return default_blocks(size);
  const int64_t m = size.sublayers();
  const int64_t count = std::get<int64_t>(option);
  if (count < 1 || count > m || !is_valid(m, count, even_length)) {
    std::string reason;
    if (count < 1 || count > m) {
      reason = fmt::format("a number from 1 to {}", m);
    } else if (!is_valid(m, count, false)) {
      reason = fmt::format("a count N with ceil({0} / ceil({0} / N)) = N", m);
    } else {
      reason = fmt::format(
          "blocks of an even length (details need it; {} blocks of {} sublayers "
          "have length {})",
          count, m, ceil_div(m, count));
    }
    throw expected(reason, count, "as residual.blocks",
                   fmt::format("the nearest valid counts at {} layers: {}", size.layers,
                               fmt::join(nearest_valid(m, count, even_length), ", ")));
  }
  return {count, ceil_div(m, count), m};
}

}  // namespace wavroute
