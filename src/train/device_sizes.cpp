#include "train/device_sizes.h"

#include "model/cost.h"

namespace wavroute {
namespace {

double real(int64_t n) { return static_cast<double>(n); }

}  // namespace

scaling::ModelSizes model_sizes(const Decoder& model, const Config& config) {
  const DecoderSpec& spec = model.spec();
  const ModelConfig& m = spec.model;
  const Residual& residual = model.residual();
  const PassMemory pass = pass_memory(spec, residual, training_shape(model, config));
  const double ends = real(spec.vocab_size * m.width);

  scaling::ModelSizes sizes;
  sizes.scheme = spec.scheme;
  sizes.layers = m.layers;
  sizes.width = m.width;
  sizes.kv_heads = m.kv_heads;
  sizes.hidden = m.hidden;
  sizes.context = m.context;
  sizes.kv_width = real(m.kv_heads * m.head_width());
  sizes.parameters = real(model.parameters().count());
  sizes.embedding = ends;
  sizes.head = m.tie_embeddings ? 0 : ends;
  sizes.tied = m.tie_embeddings ? ends : 0;
  sizes.narrow = real(static_cast<int64_t>(c10::elementSize(compute_type(model.precision()))));
  sizes.kept = pass.kept;
  sizes.kept_layers = pass.layers;
  sizes.passing = pass.passing;
  sizes.stream = pass.stream;
  sizes.flops_per_token = training_flops_per_token(spec, residual);
  sizes.carried.reserve(static_cast<size_t>(m.layers));
  for (int64_t layer = 0; layer < m.layers; ++layer) {
    sizes.carried.push_back(residual.carried_states(2 * layer));
    sizes.shares_layers = sizes.shares_layers || residual.stored_layer(layer) != layer;
  }
  sizes.earlier_positions = residual.earlier_positions();
  return sizes;
}

scaling::Training training_on_devices(const scaling::ModelSizes& model, const Forecast& forecast,
                                      const Config& config) {
  const double pass = real(forecast.micro_batch * config.model.context) *
                      (model.kept + model.passing + model.stream);
  return {.batch = config.train.batch,
          .micro_batch = config.train.micro_batch,
          .device_memory = forecast.available,
          .other = forecast.memory.total() - forecast.memory.parameters - pass};
}

}  // namespace wavroute
