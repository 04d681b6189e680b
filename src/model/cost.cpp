#include "model/cost.h"

#include <algorithm>

namespace wavroute {
namespace {

struct Sizes {
  double layers, width, hidden, heads, kv_width, context, vocab;
};

Sizes sizes_of(const DecoderSpec& spec) {
  const ModelConfig& m = spec.model;
  const auto real = [](int64_t n) { return static_cast<double>(n); };
  return {real(m.layers),
          real(m.width),
          real(m.hidden),
          real(m.heads),
          real(m.kv_heads * (m.width / m.heads)),
          real(m.context),
          real(spec.vocab_size)};
}

// Numbers per token that the graphs of one layer keep, in the compute type: normalised inputs,
// projections, rotated queries and keys, attention's output twice, gate, up, silu, product,
// updates.
double kept_per_layer(const Sizes& s) {
  const double attention =
      s.width + (s.width + 2 * s.kv_width) + (s.width + s.kv_width) + 2 * s.width + s.width;
  const double mlp = s.width + 4 * s.hidden + s.width;
  return attention + mlp;
}

}  // namespace

double forward_flops_per_token(const DecoderSpec& spec, const Residual& residual, int64_t context) {
  const Sizes s = sizes_of(spec);
  const double projections = 2 * s.width + 2 * s.kv_width;  // q, o, k, v
  const double layer = 2.0 * s.width * (projections + 3 * s.hidden);
  const double attention = 2.0 * static_cast<double>(context) * s.width;  // half of 4 T d
  return s.layers * (layer + attention) + 2.0 * s.width * s.vocab + residual.flops_per_token();
}

double training_flops_per_token(const DecoderSpec& spec, const Residual& residual) {
  return 3.0 * forward_flops_per_token(spec, residual, spec.model.context);
}

MemoryPlan plan_memory(const DecoderSpec& spec, const Residual& residual, int64_t parameter_count,
                       Precision precision, Recompute recompute, int64_t micro_batch) {
  const Sizes s = sizes_of(spec);
  const auto wide = static_cast<double>(c10::elementSize(storage_type(precision)));
  const auto narrow = static_cast<double>(c10::elementSize(compute_type(precision)));
  const double tokens = static_cast<double>(micro_batch) * s.context;

  MemoryPlan plan;
  plan.base = 400e6;  // a process that has loaded libtorch and run one product
  const double copies = 4 * wide + (precision == Precision::kBf16 ? 2 * narrow : 0);
  plan.parameters = static_cast<double>(parameter_count) * copies;

  const double sublayers = 2 * s.layers;
  double graph_layers = s.layers, snapshots = 0;
  if (recompute != Recompute::kNone) {
    const double length =
        recompute == Recompute::kLayer ? 2.0 : static_cast<double>(residual.block_length());
    graph_layers = std::min(s.layers, length / 2);
    snapshots = 2 * sublayers / length;
  }
  const double inputs = 2 * graph_layers;  // h of every sublayer that has a graph
  const double per_token = graph_layers * kept_per_layer(s) * narrow +
                           (inputs + snapshots + residual.kept_states()) * s.width * wide;
  const double head = s.vocab * (narrow + 3 * wide) + 4 * s.width * wide;
  const double temporary = 8 * s.hidden * narrow + 12 * s.width * wide;  // of one backward
  plan.activations = tokens * (per_token + head + temporary);
  return plan;
}

int64_t largest_micro_batch(const DecoderSpec& spec, const Residual& residual,
                            int64_t parameter_count, Precision precision, Recompute recompute,
                            int64_t batch, double available) {
  for (int64_t micro = batch; micro >= 1; --micro) {
    if (batch % micro != 0) continue;
    if (plan_memory(spec, residual, parameter_count, precision, recompute, micro).total() <=
        available) {
      return micro;
    }
  }
  return 0;
}

}  // namespace wavroute
