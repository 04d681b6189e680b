#include "program/greedy.h"

#include <utility>

namespace wavroute {

void remove_greedily(int64_t layers, Trials& trials) {
  Layers kept = all_layers(layers);
  if (!trials.is_spent()) trials.loss_of(kept);
  while (kept.size() > 1 && !trials.is_spent()) {
    Trial best;
    for (size_t i = 0; i < kept.size() && !trials.is_spent(); ++i) {
      Layers without = kept;
      without.erase(without.begin() + static_cast<std::ptrdiff_t>(i));
      const double loss = trials.loss_of(without);
      if (best.layers.empty() || loss < best.loss) best = {std::move(without), loss};
    }
    kept = std::move(best.layers);
  }
}

}  // namespace wavroute
