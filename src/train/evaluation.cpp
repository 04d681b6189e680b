#include "train/evaluation.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>

#include "data/scored_bytes.h"
#include "train/batch.h"
#include "train/routing_tap.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

// Logits of all positions, or of those after the prompt.
ForwardResult forward(const Decoder& model, const at::Tensor& ids, const LayerProgram* program,
                      const EvaluationOptions& options) {
  ForwardOptions forward_options{options.progress, program, nullptr, nullptr, false};
  // A program runs on our kernels with a cache alone.
  const bool is_plain = program == nullptr || program->is_plain();
  if (options.prompt == 0 && is_plain) return model.forward(ids, forward_options);
  InferenceState state = model.inference_state(ids.size(0), ids.size(1), program);
  forward_options.state = &state;
  if (options.prompt == 0) return model.forward(ids, forward_options);
  static_cast<void>(model.forward(ids.narrow(1, 0, options.prompt), forward_options));
  return model.forward(ids.narrow(1, options.prompt, ids.size(1) - options.prompt),
                       forward_options);
}

}  // namespace

bool Evaluation::is_finite() const { return std::isfinite(loss) && std::isfinite(bits_per_byte); }

Evaluation evaluate(const Decoder& model, const EvalWindows& windows, const Tokenizer& tokenizer,
                    const EvaluationOptions& options) {
  const at::NoGradGuard no_grad;
  const int64_t context = windows.context();
  if (options.prompt < 0 || options.prompt >= context) {
    throw expected(fmt::format("a prompt shorter than the window of {} tokens", context),
                   options.prompt);
  }
  Evaluation result;
  const ScoredBytes scored(tokenizer);
  double loss_sum = 0.0, depth_sum = 0.0;
  int64_t bytes = 0;
  const int64_t rows = options.choice != nullptr ? 1 : options.rows;
  Processes& processes = options.processes != nullptr ? *options.processes : single_process();
  // Of every pass: loss, depth, tokens and bytes. They are added in the order of passes, whoever
  // ran them.
  constexpr size_t kFigures = 4;
  std::vector<double> figures;
  for (int64_t begin = 0; begin < windows.count(); begin += rows) {
    const size_t at = figures.size();
    figures.resize(at + kFigures);
    if (static_cast<int64_t>(at / kFigures) % processes.size() != processes.rank()) continue;
    const int64_t end = std::min(begin + rows, windows.count());
    const Batch batch = batch_of(windows, begin, end);
    const LayerProgram* program = options.program;
    if (options.choice != nullptr) {
      const std::span<const int64_t> window = batch.input_ids();
      program = &options.choice->program_for(model, {window.begin(), window.end()});
      figures[at + 1] += static_cast<double>(program->layers().size());
    }
    const ForwardResult out = forward(model, batch.inputs.to(model.device()), program, options);
    const at::Tensor targets =
        batch.targets.narrow(1, options.prompt, context - options.prompt).flatten();
    figures[at] = at::cross_entropy_loss(out.logits.flatten(0, 1), targets.to(model.device()), {},
                                         at::Reduction::Sum, EvalWindows::kIgnored)
                      .item<double>();
    for (int64_t i = 0; i < targets.numel(); ++i) {
      const int64_t target = targets.const_data_ptr<int64_t>()[i];
      if (target == EvalWindows::kIgnored) continue;
      figures[at + 2] += 1.0;
      figures[at + 3] += static_cast<double>(scored.of(static_cast<uint32_t>(target)));
    }
    if (out.mean_depth.defined()) {
      figures[at + 1] += out.mean_depth.item<double>() * static_cast<double>(end - begin);
    }
  }
  processes.sum(figures);
  for (size_t at = 0; at < figures.size(); at += kFigures) {
    loss_sum += figures[at];
    depth_sum += figures[at + 1];
    result.tokens += static_cast<int64_t>(figures[at + 2]);
    bytes += static_cast<int64_t>(figures[at + 3]);
  }
  if (result.tokens == 0) {
    throw expected(fmt::format("a text longer than the prompt of {} tokens", options.prompt),
                   fmt::format("{} tokens", windows.scored_tokens()));
  }
  result.loss = loss_sum / static_cast<double>(result.tokens);
  result.bits_per_byte = loss_sum / static_cast<double>(bytes) / std::numbers::ln2;
  result.mean_depth = depth_sum / static_cast<double>(windows.count());
  return result;
}

nlohmann::json routing_map(const Decoder& model, const EvalWindows& windows,
                           const EvaluationOptions& options) {
  const at::NoGradGuard no_grad;
  const Batch batch = batch_of(windows, 0, std::min(options.rows, windows.count()));
  RoutingTap tap(batch.targets.flatten().ne(EvalWindows::kIgnored));
  static_cast<void>(model.forward(batch.inputs.to(model.device()),
                                  {options.progress, options.program, nullptr, &tap, false}));
  return tap.document(model.spec().scheme, options.progress.step);
}

}  // namespace wavroute
