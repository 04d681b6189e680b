#include "inspect/router_starts.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <charconv>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>

#include "inspect/layer_pass.h"

namespace wavroute {
namespace {

// Where a parameter belongs, from its checkpoint name (docs/method.md section 7).
struct Place {
  std::string kind;
  std::optional<int64_t> sublayer;
};

Place place_of(std::string_view name, int64_t layers) {
  constexpr std::string_view kLayers = "model.layers.", kModel = "model.";
  const auto take = [&](std::string_view prefix) {
    if (!name.starts_with(prefix)) return false;
    name.remove_prefix(prefix.size());
    return true;
  };
  if (!take(kLayers)) {
    take(kModel);
    if (take("output_attn_")) return {std::string(name), 2 * layers + 1};
    return {std::string(name), std::nullopt};
  }
  int64_t layer = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), layer);
  if (error != std::errc() || end == name.data() + name.size()) return {std::string(name), {}};
  name.remove_prefix(static_cast<size_t>(end - name.data()) + 1);
  if (take("self_attention_") || take("self_attn_")) return {std::string(name), 2 * layer + 1};
  // What a layer has as a whole comes after its MLP.
  take("mlp_");
  return {std::string(name), 2 * layer + 2};
}

}  // namespace

std::vector<SchemeTensor> scheme_tensors(Decoder& model, std::optional<int64_t> seed) {
  const at::NoGradGuard no_grad;
  const DecoderSpec& spec = model.spec();
  // A second residual of the same scheme declares the same parameters in a table of their own.
  const auto fresh =
      find_scheme(spec.scheme)
          .create(spec.options, {spec.model.layers, spec.model.width}, spec.model.rms_norm_eps);
  ParameterTable starts;
  fresh->declare(starts);
  const at::ScalarType storage = storage_type(model.precision());
  starts.allocate(storage, storage, model.device(), static_cast<uint64_t>(seed.value_or(1)));

  std::map<std::string, at::Tensor> values;
  for (const Parameter& parameter : model.parameters().parameters()) {
    for (const ParameterSlice& slice : parameter.slices) {
      values[slice.name] = parameter.rows(slice, parameter.value.detach());
    }
  }
  std::vector<SchemeTensor> tensors;
  for (const Parameter& parameter : starts.parameters()) {
    for (const ParameterSlice& slice : parameter.slices) {
      Place place = place_of(slice.name, spec.model.layers);
      tensors.push_back({slice.name, std::move(place.kind), place.sublayer, values.at(slice.name),
                         parameter.rows(slice, parameter.value.detach()).clone(),
                         seed.has_value() || slice.init.stddev == 0.0});
    }
  }
  return tensors;
}

nlohmann::ordered_json moves_json(const std::vector<SchemeTensor>& tensors, double reach) {
  const at::NoGradGuard no_grad;
  nlohmann::ordered_json result = nlohmann::ordered_json::array();
  for (const SchemeTensor& tensor : tensors) {
    if (!tensor.start_is_known) continue;
    const double moved =
        (tensor.value - tensor.start).to(at::kDouble).square().mean().sqrt().item<double>();
    result.push_back({{"name", tensor.name},
                      {"kind", tensor.kind},
                      {"sublayer", tensor.sublayer ? nlohmann::ordered_json(*tensor.sublayer)
                                                   : nlohmann::ordered_json()},
                      {"moved", moved},
                      {"ratio", moved / reach}});
  }
  return result;
}

nlohmann::ordered_json ablate(Decoder& model, const std::vector<SchemeTensor>& tensors,
                              const std::vector<EvalWindows>& texts,
                              const InspectionOptions& options) {
  const at::NoGradGuard no_grad;
  const auto loss = [&] {
    double sum = 0.0, tokens = 0.0;
    for (const EvalWindows& windows : texts) {
      const auto scored = static_cast<double>(windows.scored_tokens());
      sum += scored * mean_loss(model, windows, options);
      tokens += scored;
    }
    return sum / tokens;
  };
  const double usual = loss();
  std::vector<std::string> names = names_of(sites_of(model, nullptr));
  names.emplace_back("read-out");
  std::set<int64_t> places;
  for (const SchemeTensor& tensor : tensors) {
    if (tensor.sublayer) places.insert(*tensor.sublayer);
  }
  nlohmann::ordered_json result = nlohmann::ordered_json::array();
  for (const int64_t place : places) {
    std::vector<std::pair<at::Tensor, at::Tensor>> kept;
    for (const SchemeTensor& tensor : tensors) {
      if (tensor.sublayer != place) continue;
      kept.emplace_back(tensor.value, tensor.value.clone());
      at::Tensor(tensor.value).copy_(tensor.start);
    }
    model.parameters().refresh_compute();
    const double without = loss();
    for (auto& [value, before] : kept) value.copy_(before);
    result.push_back({{"sublayer", place},
                      {"name", names.at(static_cast<size_t>(place - 1))},
                      {"loss", without},
                      {"difference", without - usual}});
  }
  model.parameters().refresh_compute();
  return result;
}

}  // namespace wavroute
