#include "model/cost.h"

namespace wavroute {
namespace {

struct Sizes {
  double layers, width, hidden, q_width, kv_width, context, vocab;
};

Sizes sizes_of(const DecoderSpec& spec) {
  const ModelConfig& m = spec.model;
  const auto real = [](int64_t n) { return static_cast<double>(n); };
  return {real(m.layers),
          real(m.width),
          real(m.hidden),
          real(m.heads * m.head_width()),
          real(m.kv_heads * m.head_width()),
          real(m.context),
          real(spec.vocab_size)};
}

}  // namespace

double forward_flops_per_token(const DecoderSpec& spec, const Residual& residual, int64_t context) {
  const Sizes s = sizes_of(spec);
  const double projections = 2 * s.q_width + 2 * s.kv_width;  // q, o, k, v
  const double layer = 2.0 * s.width * (projections + 3 * s.hidden);
  const double attention = 2.0 * static_cast<double>(context) * s.q_width;  // half of 4 T
  return s.layers * (layer + attention) + 2.0 * s.width * s.vocab + residual.flops_per_token();
}

double training_flops_per_token(const DecoderSpec& spec, const Residual& residual) {
  return 3.0 * forward_flops_per_token(spec, residual, spec.model.context);
}

}  // namespace wavroute
