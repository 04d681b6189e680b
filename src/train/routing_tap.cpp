#include "train/routing_tap.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>

namespace wavroute {
namespace {

const char* kind_name(SublayerKind kind) {
  return kind == SublayerKind::kAttention ? "attention" : "mlp";
}

nlohmann::json place(const Site& site) {
  return {{"sublayer", site.index() + 1}, {"layer", site.layer}, {"kind", kind_name(site.kind)}};
}

// A quantile of `values`, linear between two of them; reorders `values`, none of which is a NaN.
// (at::quantile takes at most 2^24 numbers.)
double quantile(std::span<double> values, double fraction) {
  const double place = fraction * static_cast<double>(values.size() - 1);
  const auto low = values.begin() + static_cast<std::ptrdiff_t>(place);
  std::nth_element(values.begin(), low, values.end());
  if (low + 1 == values.end()) return *low;
  return std::lerp(*low, *std::min_element(low + 1, values.end()), place - std::floor(place));
}

}  // namespace

void RoutingTap::on_weights(const std::optional<Site>& site, std::span<const SourceLabel> sources,
                            const at::Tensor& weights) {
  // [sources, scored tokens]
  const at::Tensor a = weights.flatten(1).index({at::indexing::Slice(), scored_}).to(at::kDouble);
  const at::Tensor mean = a.mean(1).cpu();
  nlohmann::json entry =
      site ? place(*site)
           : nlohmann::json{{"sublayer", sublayers_.size() + 1}, {"kind", "read_out"}};
  // Mean entropy of a token's weights, in nats.
  entry["entropy"] = -at::xlogy(a, a).sum(0).mean().item<double>();
  entry["sources"] = nlohmann::json::array();
  for (size_t j = 0; j < sources.size(); ++j) {
    entry["sources"].push_back({{"label", sources[j].name},
                                {"type", sources[j].type},
                                {"block", sources[j].block},
                                {"weight", mean[static_cast<int64_t>(j)].item<double>()}});
  }
  sublayers_.push_back(std::move(entry));
}

void RoutingTap::on_gate(const Site& site, const at::Tensor& alpha) {
  const at::Tensor values = alpha.flatten(0, 1).index({scored_}).to(at::kDouble).flatten().cpu();
  nlohmann::json entry = place(site);
  const double mean = values.mean().item<double>();
  entry["mean"] = mean;
  const std::span<double> numbers(values.mutable_data_ptr<double>(),
                                  static_cast<size_t>(values.numel()));
  entry["p10"] = std::isnan(mean) ? mean : quantile(numbers, 0.1);
  entry["p90"] = std::isnan(mean) ? mean : quantile(numbers, 0.9);
  gates_.push_back(std::move(entry));
}

void RoutingTap::on_depth(const at::Tensor& depth) {
  const at::Tensor values = depth.flatten().index({scored_}).to(at::kLong).cpu();
  const at::Tensor counts = at::bincount(values);  // from depth 0
  depth_["mean"] = values.to(at::kDouble).mean().item<double>();
  for (int64_t n = 1; n < counts.size(0); ++n) {
    depth_["histogram"].push_back(counts[n].item<int64_t>());
  }
}

nlohmann::json RoutingTap::document(const std::string& scheme, int64_t step) const {
  if (sublayers_.empty() && gates_.empty() && depth_.is_null()) return nullptr;
  nlohmann::json document = {
      {"scheme", scheme}, {"step", step}, {"tokens", scored_.sum().item<int64_t>()}};
  if (!sublayers_.empty()) document["sublayers"] = sublayers_;
  if (!gates_.empty()) document["gates"] = gates_;
  if (!depth_.is_null()) document["depth"] = depth_;
  return document;
}

}  // namespace wavroute
