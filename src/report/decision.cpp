#include "report/decision.h"

#include <algorithm>

namespace wavroute {
namespace {

int order(double a, double b) { return a < b ? -1 : a > b ? 1 : 0; }

}  // namespace

DecisionAccuracy decision_accuracy(std::span<const double> shallow,
                                   std::span<const double> deepest) {
  DecisionAccuracy result;
  const std::size_t schemes = std::min(shallow.size(), deepest.size());
  for (std::size_t i = 0; i < schemes; ++i) {
    for (std::size_t j = i + 1; j < schemes; ++j) {
      ++result.pairs;
      if (order(shallow[i], shallow[j]) == order(deepest[i], deepest[j])) ++result.agree;
    }
  }
  return result;
}

}  // namespace wavroute
