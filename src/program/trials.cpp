#include "program/trials.h"

#include <algorithm>
#include <numeric>

namespace wavroute {

Layers all_layers(int64_t layers) {
  Layers all(static_cast<size_t>(layers));
  std::iota(all.begin(), all.end(), int64_t{0});
  return all;
}

double Trials::loss_of(const Layers& layers) {
  const auto [place, fresh] = index_.try_emplace(layers, all_.size());
  if (fresh) all_.push_back({layers, loss_(layers)});
  return all_[place->second].loss;
}

std::vector<Trial> best_by_length(std::span<const Trial> trials) {
  std::vector<Trial> sorted(trials.begin(), trials.end());
  std::ranges::stable_sort(sorted, [](const Trial& a, const Trial& b) {
    return a.layers.size() != b.layers.size() ? a.layers.size() < b.layers.size() : a.loss < b.loss;
  });
  std::vector<Trial> best;
  for (Trial& trial : sorted) {
    if (best.empty() || trial.loss < best.back().loss) best.push_back(std::move(trial));
  }
  return best;
}

}  // namespace wavroute
