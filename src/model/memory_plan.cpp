// The memory that training takes, counted from what the passes allocate.
#include <algorithm>
#include <cmath>

#include "model/cost.h"
#include "residual/stream_memory.h"

namespace wavroute {
namespace {

constexpr double kFloat = 4;

struct Sizes {
  double width, hidden, heads, q_width, kv_width, context, vocab, layers;
  double narrow, wide;  // bytes of a number: compute type, storage type
};

Sizes sizes_of(const DecoderSpec& spec, Precision precision) {
  const ModelConfig& m = spec.model;
  const auto real = [](int64_t n) { return static_cast<double>(n); };
  return {real(m.width),
          real(m.hidden),
          real(m.heads),
          real(m.heads * m.head_width()),
          real(m.kv_heads * m.head_width()),
          real(m.context),
          real(spec.vocab_size),
          real(m.layers),
          static_cast<double>(c10::elementSize(compute_type(precision))),
          static_cast<double>(c10::elementSize(storage_type(precision)))};
}

// Sublayers that are kept, or recomputed, together.
int64_t segment_of(const DecoderSpec& spec, const Residual& residual, Recompute recompute) {
  const int64_t sublayers = 2 * spec.model.layers;
  if (recompute == Recompute::kNone) return sublayers;
  return std::min(sublayers, recompute == Recompute::kLayer ? 2 : residual.block_length());
}

double qkv_row(const Sizes& s) { return s.narrow * (s.q_width + 2 * s.kv_width); }

// Bytes per token of a pass on our kernels. x, u, y and their gradients are rows of the width in
// the compute type; memory is kept by size, so that what is there once serves all that come and go.
PassMemory kernel_training(const Sizes& s, const StreamMemory& stream, double segment) {
  const double row = s.narrow * s.width, y = s.narrow * s.q_width, hidden = s.narrow * s.hidden;
  const double layers = std::ceil(segment / 2);
  // Attention keeps x, qkv, y and one float per head; the MLP x and the gate with the up
  // projection.
  const double kept = layers * (2 * row + y + qkv_row(s) + kFloat * s.heads + 2 * hidden);
  // Temporaries: du, dy and dx; dqkv; the hidden activation or its gradient; the logits or theirs.
  const double passing = 2 * row + y + qkv_row(s) + hidden + s.narrow * s.vocab;
  return {kept, passing, stream.training};
}

double kernel_evaluation(const Sizes& s, const StreamMemory& stream) {
  return s.narrow * (2 * s.width + s.q_width) + qkv_row(s) + kFloat * s.heads +
         3 * s.narrow * s.hidden + stream.evaluation;
}

// The same for graphs of stock operators, per layer: normalised inputs, projections, rotated
// queries and keys, attention's output twice, gate, up, silu, product, updates.
PassMemory composed_training(const Sizes& s, const Residual& residual, Recompute recompute) {
  const double attention =
      s.width + (s.q_width + 2 * s.kv_width) + (s.q_width + s.kv_width) + 2 * s.q_width + s.width;
  const double mlp = s.width + 4 * s.hidden + s.width;
  const double sublayers = 2 * s.layers;
  double graph_layers = s.layers, snapshots = 0;
  if (recompute != Recompute::kNone) {
    const double length =
        recompute == Recompute::kLayer ? 2.0 : static_cast<double>(residual.block_length());
    graph_layers = std::min(s.layers, length / 2);
    snapshots = (1 + residual.snapshot_states()) * sublayers / length;
  }
  const double inputs = 2 * graph_layers;  // h of every sublayer that has a graph
  const double states = inputs + snapshots + residual.kept_states() * graph_layers / s.layers +
                        residual.standing_states(true);
  const double kept = graph_layers * (attention + mlp) * s.narrow;
  const double head = s.vocab * (s.narrow + 3 * s.wide) + 4 * s.width * s.wide;
  const double temporary = 8 * s.hidden * s.narrow + 12 * s.width * s.wide;  // of one backward
  return {kept, head + temporary, states * s.width * s.wide};
}

double composed_evaluation(const Sizes& s, const Residual& residual) {
  return 4 * s.hidden * s.narrow + (12 + residual.standing_states(false)) * s.width * s.wide;
}

bool runs_on_kernels(const TrainingShape& shape) {
  return shape.backend != ops::BackendKind::kComposed;
}

PassMemory training_memory(const Sizes& s, const DecoderSpec& spec, const Residual& residual,
                           const StreamMemory& stream, const TrainingShape& shape) {
  if (!runs_on_kernels(shape)) return composed_training(s, residual, shape.recompute);
  return kernel_training(s, stream,
                         static_cast<double>(segment_of(spec, residual, shape.recompute)));
}

// libtorch's products of narrow numbers add up in float, in memory of their own.
double product_scratch(const Sizes& s, const TrainingShape& shape) {
  const bool adds_up = runs_on_kernels(shape) && s.narrow < kFloat;
  return adds_up ? kFloat * std::max(2 * s.hidden, s.vocab) : 0;
}

StreamMemory stream_of(const Sizes& s, const DecoderSpec& spec, const Residual& residual,
                       const TrainingShape& shape) {
  const int64_t segment = segment_of(spec, residual, shape.recompute);
  return stream_memory(residual, {spec.model.width, 2 * spec.model.layers, segment, s.narrow});
}

}  // namespace

PassMemory pass_memory(const DecoderSpec& spec, const Residual& residual,
                       const TrainingShape& shape) {
  const Sizes s = sizes_of(spec, shape.precision);
  PassMemory memory =
      training_memory(s, spec, residual, stream_of(s, spec, residual, shape), shape);
  memory.passing += product_scratch(s, shape);
  memory.layers = (segment_of(spec, residual, shape.recompute) + 1) / 2;
  return memory;
}

MemoryPlan plan_memory(const DecoderSpec& spec, const Residual& residual, int64_t parameter_count,
                       const TrainingShape& shape) {
  const Sizes s = sizes_of(spec, shape.precision);
  const bool on_kernels = runs_on_kernels(shape);
  const StreamMemory stream = stream_of(s, spec, residual, shape);
  const double tokens = static_cast<double>(shape.micro_batch) * s.context;
  const double eval_tokens = static_cast<double>(shape.eval_rows) * s.context;

  MemoryPlan plan;
  plan.base = shape.process + tokens * product_scratch(s, shape);
  double per_parameter = 4 * s.wide;                  // value, gradient, two moments
  if (s.narrow != s.wide) per_parameter += s.narrow;  // the copy in the compute type
  plan.parameters = static_cast<double>(parameter_count) * per_parameter;
  const PassMemory pass_of_training = training_memory(s, spec, residual, stream, shape);
  plan.activations =
      tokens * (pass_of_training.kept + pass_of_training.passing + pass_of_training.stream);
  // Of as many rows as a training pass, the memory is there already: without the logits, which are
  // libtorch's: as computed, in the storage type, and their log-softmax.
  const bool shared = on_kernels && shape.eval_rows == shape.micro_batch;
  const double pass = shared       ? 0
                      : on_kernels ? kernel_evaluation(s, stream)
                                   : composed_evaluation(s, residual);
  const double logits = s.vocab * ((s.narrow != s.wide ? s.narrow : 0) + 2 * s.wide);
  const double cache =
      static_cast<double>(shape.sample_tokens) * s.layers * 2 * s.kv_width * s.narrow;
  // The pass for the routing map is of stock operators, beside what our kernels hold.
  const double map = on_kernels ? composed_evaluation(s, residual) : 0;
  plan.evaluation = eval_tokens * pass + std::max(eval_tokens * (logits + map), cache);
  return plan;
}

int64_t largest_micro_batch(const DecoderSpec& spec, const Residual& residual,
                            int64_t parameter_count, TrainingShape shape, int64_t batch,
                            double available) {
  for (int64_t micro = batch; micro >= 1; --micro) {
    if (batch % micro != 0) continue;
    shape.micro_batch = micro;
    if (plan_memory(spec, residual, parameter_count, shape).total() <= available) return micro;
  }
  return 0;
}

}  // namespace wavroute
