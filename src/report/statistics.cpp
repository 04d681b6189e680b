#include "report/statistics.h"

#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <vector>

namespace wavroute {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// The continued fraction of the incomplete beta function, by the modified Lentz method; converges
// quickly for x < (a + 1) / (a + b + 2).
double beta_fraction(double a, double b, double x) {
  constexpr double kTiny = 1e-300, kTolerance = 1e-15;
  constexpr int kTerms = 10000;
  const auto away_from_zero = [](double v) { return std::abs(v) < kTiny ? kTiny : v; };
  double c = 1.0;
  double d = 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0));
  double value = d;
  for (int m = 1; m <= kTerms; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1.0 / away_from_zero(1.0 + even * d);
    c = away_from_zero(1.0 + even / c);
    value *= d * c;
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1.0 / away_from_zero(1.0 + odd * d);
    c = away_from_zero(1.0 + odd / c);
    value *= d * c;
    if (std::abs(d * c - 1.0) < kTolerance) break;
  }
  return value;
}

}  // namespace

double mean(std::span<const double> values) {
  if (values.empty()) return kNan;
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double sample_standard_deviation(std::span<const double> values) {
  if (values.size() < 2) return kNan;
  const double center = mean(values);
  double squares = 0.0;
  for (const double value : values) squares += (value - center) * (value - center);
  return std::sqrt(squares / static_cast<double>(values.size() - 1));
}

double incomplete_beta(double a, double b, double x) {
  if (x <= 0.0) return 0.0;
  if (x >= 1.0) return 1.0;
  const double factor = std::exp(a * std::log(x) + b * std::log1p(-x) + std::lgamma(a + b) -
                                 std::lgamma(a) - std::lgamma(b));
  if (x < (a + 1.0) / (a + b + 2.0)) return factor * beta_fraction(a, b, x) / a;
  return 1.0 - factor * beta_fraction(b, a, 1.0 - x) / b;
}

double student_t_probability(double t, double degrees) {
  const double tail = 0.5 * incomplete_beta(degrees / 2.0, 0.5, degrees / (degrees + t * t));
  return t > 0.0 ? 1.0 - tail : tail;
}

double student_t_two_sided(double t, double degrees) {
  if (!std::isfinite(t)) return std::isnan(t) ? kNan : 0.0;
  return incomplete_beta(degrees / 2.0, 0.5, degrees / (degrees + t * t));
}

double student_t_quantile(double probability, double degrees) {
  if (!(probability > 0.0 && probability < 1.0) || !(degrees > 0.0)) return kNan;
  if (probability < 0.5) return -student_t_quantile(1.0 - probability, degrees);
  if (probability == 0.5) return 0.0;
  double low = 0.0, high = 1.0;
  while (std::isfinite(high) && student_t_probability(high, degrees) < probability) high *= 2.0;
  // Bisection ends when the midpoint equals an end: the interval is then one rounding wide.
  for (double middle = 0.5 * (low + high); middle > low && middle < high;
       middle = 0.5 * (low + high)) {
    (student_t_probability(middle, degrees) < probability ? low : high) = middle;
  }
  return high;
}

bool PairedDifference::excludes_zero() const { return half_width && std::abs(mean) > *half_width; }

PairedDifference paired_difference(std::span<const double> a, std::span<const double> b) {
  if (a.size() != b.size() || a.empty()) {
    throw std::invalid_argument("paired_difference: expected as many values in a as in b, and one");
  }
  std::vector<double> differences(a.size());
  for (std::size_t i = 0; i < a.size(); ++i) differences[i] = a[i] - b[i];
  PairedDifference result{mean(differences), std::nullopt, a.size()};
  if (a.size() >= 2) {
    const double n = static_cast<double>(a.size());
    const double error = sample_standard_deviation(differences) / std::sqrt(n);
    result.half_width = student_t_quantile(0.975, n - 1.0) * error;
    // Equal pairs (0 / 0) show no difference.
    result.p = result.mean == 0.0 ? 1.0 : student_t_two_sided(result.mean / error, n - 1.0);
  }
  return result;
}

std::optional<double> noise_floor(std::span<const double> losses) {
  if (losses.size() < 2) return std::nullopt;
  const auto n = static_cast<double>(losses.size());
  return student_t_quantile(0.975, n - 1.0) * sample_standard_deviation(losses) *
         std::sqrt(2.0 / n);
}

}  // namespace wavroute
