#include "model/generate.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "base/philox.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

double cache_bytes_per_token(const Decoder& model, const LayerProgram* program) {
  const ModelConfig& m = model.spec().model;
  const double visits = static_cast<double>(program != nullptr ? program->layers().size()
                                                               : static_cast<size_t>(m.layers));
  const auto numbers = static_cast<double>(2 * m.kv_heads * m.head_width());
  return visits * numbers * static_cast<double>(c10::elementSize(compute_type(model.precision())));
}

GenerationResult generate(const Decoder& model, std::span<const uint32_t> prompt, int64_t tokens,
                          const Sampling& sampling, const LayerProgram* program,
                          const Progress& progress, const std::function<bool(uint32_t)>& on_token) {
  check(sampling);
  const auto prompt_length = static_cast<int64_t>(prompt.size());
  InferenceState state = model.inference_state(1, prompt_length + tokens, program);
  const Philox random(sampling.seed, "sample");
  std::vector<int64_t> input(prompt.begin(), prompt.end());
  std::vector<uint32_t> seen(prompt.begin(), prompt.end());

  GenerationResult result;
  double depth_sum = 0.0;
  auto start = std::chrono::steady_clock::now();
  for (int64_t n = 0; n < tokens; ++n) {
    const at::Tensor ids =
        at::tensor(input, at::kLong).view({1, static_cast<int64_t>(input.size())});
    ForwardOptions options{progress, program, &state, nullptr, /*last_only=*/true};
    const ForwardResult out = model.forward(ids.to(model.device()), options);
    if (!out.logits.isfinite().all().item<bool>()) {
      throw Failure(
          expectation("finite logits", "others", fmt::format("after {} tokens", prompt_length + n)),
          "the model holds values that are not finite or too large: use an earlier "
          "checkpoint");
    }
    const at::Tensor logits = out.logits.flatten().to(at::kFloat).cpu().contiguous();
    const uint32_t token =
        sample_token({logits.const_data_ptr<float>(), static_cast<size_t>(logits.numel())},
                     sampling, random.uniform(static_cast<uint64_t>(n)), seen);
    seen.push_back(token);
    if (n == 0) {
      result.prefill_seconds = seconds_since(start);
      start = std::chrono::steady_clock::now();
    } else if (out.mean_depth.defined()) {
      depth_sum += out.mean_depth.item<double>();
    }
    result.ids.push_back(token);
    if (!on_token(token)) break;
    input = {token};
  }
  result.decode_seconds = seconds_since(start);
  if (result.ids.size() > 1) {
    result.mean_depth = depth_sum / static_cast<double>(result.ids.size() - 1);
  }
  return result;
}

}  // namespace wavroute
