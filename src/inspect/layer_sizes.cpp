#include "inspect/layer_sizes.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <nlohmann/json.hpp>

#include "inspect/layer_pass.h"

namespace wavroute {
namespace {

double size_of(const at::Tensor& rows) {
  return rows.to(at::kDouble).square().mean(-1).sqrt().mean().item<double>();
}

}  // namespace

nlohmann::ordered_json layer_sizes(Decoder& model, const at::Tensor& ids,
                                   const Progress& progress) {
  const at::NoGradGuard no_grad;
  const LayerPass pass = run_layers(model, ids, {.progress = progress});
  nlohmann::ordered_json sizes = {{"stream", nlohmann::ordered_json::array()},
                                  {"update", nlohmann::ordered_json::array()}};
  for (const at::Tensor& h : pass.reads) sizes["stream"].push_back(size_of(h));
  for (const at::Tensor& u : pass.updates) sizes["update"].push_back(size_of(u));
  nlohmann::ordered_json entropies = nlohmann::ordered_json::array();
  bool routed = false;
  for (const ReaderTaps& taps : pass.taps) {
    const bool has_router = taps.weights.defined() && taps.weights.size(0) > 1;
    routed = routed || has_router;
    const at::Tensor a = has_router ? taps.weights.to(at::kDouble) : at::Tensor();
    entropies.push_back(has_router
                            ? nlohmann::ordered_json(-at::xlogy(a, a).sum(0).mean().item<double>())
                            : nlohmann::ordered_json());
  }
  if (routed) sizes["entropy"] = std::move(entropies);
  return sizes;
}

}  // namespace wavroute
