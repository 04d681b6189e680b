// Collects source weights, gates and depths into the content of routing.json.
#pragma once

#include <ATen/core/Tensor.h>

#include <nlohmann/json.hpp>
#include <string>

#include "wavroute/residual.h"

namespace wavroute {

class RoutingTap final : public Taps {
 public:
  // `scored` [B*T] bool: the tokens that are averaged over.
  explicit RoutingTap(at::Tensor scored) : scored_(std::move(scored)) {}

  void on_weights(const std::optional<Site>& site, std::span<const SourceLabel> sources,
                  const at::Tensor& weights) override;
  void on_gate(const Site& site, const at::Tensor& alpha) override;
  void on_depth(const at::Tensor& depth) override;

  // {"scheme", "step", "tokens", "sublayers": [...], "gates": [...], "depth": {...}}, the parts
  // that the scheme has; null if it has none.
  [[nodiscard]] nlohmann::json document(const std::string& scheme, int64_t step) const;

 private:
  at::Tensor scored_;
  nlohmann::json sublayers_ = nlohmann::json::array();
  nlohmann::json gates_ = nlohmann::json::array();
  nlohmann::json depth_;
};

}  // namespace wavroute
