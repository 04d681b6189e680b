// Compares the accuracy of two computations.
#pragma once

#include <cmath>
#include <cstdint>

namespace wavroute::testing {

// How much larger the errors of one computation are than those of another, over draws of the
// numbers. How far a model's rounding errors grow is chance: for one draw, the ratio of two equally
// exact computations varies by a factor of 1.6 (the standard deviation of its logarithm is 0.3 to
// 0.55, on every instruction set alike: docs/experiments.md), so that one in twenty is above 2.
// Their geometric mean over 12 draws varies by a factor of 1.15.
class ErrorRatio {
 public:
  static constexpr uint64_t kDraws = 12;
  // `floor` stands for one rounding.
  void add(double error, double other, double floor) {
    logarithms_ += std::log((error + floor) / (other + floor));
    ++draws_;
  }
  [[nodiscard]] double mean() const { return std::exp(logarithms_ / draws_); }

 private:
  double logarithms_ = 0.0, draws_ = 0.0;
};

}  // namespace wavroute::testing
