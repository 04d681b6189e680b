#include "config/model_size.h"

#include <fmt/format.h>

#include "config/rope_scaling.h"

namespace wavroute {
namespace {

// Far beyond any model that was ever trained, and small enough that the names, shapes and number of
// parameters (at most 2^59) can be computed [ours].
constexpr int64_t kMostLayers = 4096;  // as many as a layer program may execute
constexpr int64_t kWidest = int64_t{1} << 20;
constexpr int64_t kWidestHidden = int64_t{1} << 22;
constexpr int64_t kLargest = (int64_t{1} << 31) - 1;

struct Size {
  const char* key;
  int64_t value, low, high;
};

ModelFault fault(std::vector<std::string> keys, std::string expected, std::string given,
                 std::string hint = {}) {
  return {std::move(keys), std::move(expected), std::move(given), std::move(hint)};
}

std::optional<ModelFault> find_size_fault(const ModelConfig& model, int64_t vocab_size,
                                          const ModelKeys& keys) {
  const Size sizes[] = {
      {keys.layers, model.layers, 1, kMostLayers}, {keys.width, model.width, 1, kWidest},
      {keys.heads, model.heads, 1, kWidest},       {keys.kv_heads, model.kv_heads, 0, kWidest},
      {keys.head_dim, model.head_dim, 0, kWidest}, {keys.hidden, model.hidden, 0, kWidestHidden},
      {keys.context, model.context, 1, kLargest},  {keys.vocab_size, vocab_size, 1, kLargest}};
  for (const Size& size : sizes) {
    if (size.value >= size.low && size.value <= size.high) continue;
    return fault({size.key}, fmt::format("{} from {} to {}", size.key, size.low, size.high),
                 fmt::format("{}", size.value));
  }
  return std::nullopt;
}

}  // namespace

std::optional<ModelFault> find_model_fault(const ModelConfig& model, int64_t vocab_size,
                                           const ModelKeys& keys) {
  if (auto found = find_size_fault(model, vocab_size, keys)) return found;
  if (model.head_dim > 0) {
    if (model.head_dim % 2 != 0) {
      return fault({keys.head_dim}, fmt::format("an even {}", keys.head_dim),
                   fmt::format("{}", model.head_dim), "the rotary embedding turns pairs");
    }
    if (model.heads * model.head_dim > kWidest) {
      return fault({keys.head_dim, keys.heads},
                   fmt::format("{} times {} of at most {}", keys.heads, keys.head_dim, kWidest),
                   fmt::format("{}", model.heads * model.head_dim));
    }
  } else if (model.width % model.heads != 0 || (model.width / model.heads) % 2 != 0) {
    return fault(
        {keys.heads, keys.width}, "heads that divide the width into even head widths",
        fmt::format("width {} and {} heads", model.width, model.heads),
        fmt::format("the rotary embedding turns pairs: {} / {} must be an even whole number",
                    keys.width, keys.heads));
  }
  if (model.kv_heads != 0 && model.heads % model.kv_heads != 0) {
    return fault({keys.kv_heads, keys.heads}, "kv_heads that divide the heads",
                 fmt::format("{} heads and {} kv_heads", model.heads, model.kv_heads),
                 fmt::format("{} must be a multiple of {}", keys.heads, keys.kv_heads));
  }
  // Written so that a NaN fails. The kernels compute in fp32, where more than this is infinite.
  constexpr double kLargestConstant = 1e30;
  if (!(model.rms_norm_eps >= 0 && model.rms_norm_eps <= kLargestConstant)) {
    return fault({keys.rms_norm_eps}, fmt::format("{} of at least 0", keys.rms_norm_eps),
                 fmt::format("{}", model.rms_norm_eps));
  }
  if (!(model.rope_theta > 0 && model.rope_theta <= kLargestConstant)) {
    return fault({keys.rope_theta}, fmt::format("{} above 0", keys.rope_theta),
                 fmt::format("{}", model.rope_theta));
  }
  if (const auto found = find_rope_fault(model.rope_scaling)) {
    return fault({keys.rope_scaling}, found->expected, found->given,
                 fmt::format("of {}", keys.rope_scaling));
  }
  return std::nullopt;
}

}  // namespace wavroute
