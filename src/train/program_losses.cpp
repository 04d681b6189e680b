#include "train/program_losses.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

namespace wavroute {
namespace {

constexpr double kMostLogits = 1 << 25;  // numbers at a time: bounds the memory

int64_t rows_at_once(const Decoder& model, int64_t context) {
  const double per_row = static_cast<double>(context * model.spec().vocab_size);
  return std::max<int64_t>(static_cast<int64_t>(kMostLogits / per_row), 1);
}

// Nats of each token, float [rows, T]; 0 where the target is not scored.
at::Tensor token_losses(const Decoder& model, const Batch& batch, const LayerProgram& program) {
  InferenceState state = model.inference_state(batch.rows(), batch.context(), &program);
  const ForwardOptions options{{}, &program, &state, nullptr, /*last_only=*/false};
  const at::Tensor logits = model.forward(batch.inputs.to(model.device()), options).logits;
  return at::cross_entropy_loss(logits.flatten(0, 1).to(at::kFloat),
                                batch.targets.flatten().to(model.device()), {}, at::Reduction::None,
                                EvalWindows::kIgnored)
      .view({batch.rows(), batch.context()});
}

}  // namespace

std::vector<double> program_losses(const Decoder& model, const Batch& batch,
                                   const LayerProgram& program, int64_t prompt) {
  const at::NoGradGuard no_grad;
  const int64_t step = rows_at_once(model, batch.context());
  std::vector<double> losses;
  for (int64_t begin = 0; begin < batch.rows(); begin += step) {
    const Batch some = batch.slice(begin, std::min(begin + step, batch.rows()));
    // Position t predicts token t + 1: the first prediction that counts is that after the prompt.
    const int64_t first = std::max<int64_t>(prompt - 1, 0), count = some.context() - first;
    const at::Tensor sums =
        token_losses(model, some, program).narrow(1, first, count).to(at::kDouble).sum(1).cpu();
    const at::Tensor scored =
        some.targets.narrow(1, first, count).ne(EvalWindows::kIgnored).sum(1).to(at::kDouble);
    const at::Tensor means = sums / scored;
    const double* values = means.const_data_ptr<double>();
    losses.insert(losses.end(), values, values + means.numel());
  }
  return losses;
}

}  // namespace wavroute
