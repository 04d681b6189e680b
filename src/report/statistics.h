// Means over seeds and their uncertainty: Student's t on paired differences.
#pragma once

#include <cstddef>
#include <optional>
#include <span>

namespace wavroute {

// Arithmetic mean; NaN for an empty span.
[[nodiscard]] double mean(std::span<const double> values);

// Square root of the unbiased variance (divided by n - 1); NaN for fewer than two values.
[[nodiscard]] double sample_standard_deviation(std::span<const double> values);

// The regularised incomplete beta function I_x(a, b), for a, b > 0 and x in [0, 1].
[[nodiscard]] double incomplete_beta(double a, double b, double x);

// P(T <= t) for Student's t with `degrees` > 0 degrees of freedom (not necessarily whole).
[[nodiscard]] double student_t_probability(double t, double degrees);

// The t with P(T <= t) = probability, for probability in (0, 1): 0.975 gives the half width of a
// two-sided 95 % interval in standard errors.
[[nodiscard]] double student_t_quantile(double probability, double degrees);

// P(|T| >= |t|), accurate where it is tiny.
[[nodiscard]] double student_t_two_sided(double t, double degrees);

struct PairedDifference {
  double mean = 0.0;                 // of a_i - b_i
  std::optional<double> half_width;  // of the 95 % interval; none for a single pair
  std::size_t n = 0;                 // pairs
  // Of the two-sided paired t-test; none for a single pair.
  std::optional<double> p = std::nullopt;

  // False for a single pair: without an interval nothing is shown.
  [[nodiscard]] bool excludes_zero() const;
};

// Mean of a_i - b_i with its 95 % interval, t(0.975, n - 1) s / sqrt(n). Both spans hold the same
// number of values, at least one, in the same order of seeds; throws std::invalid_argument if not.
[[nodiscard]] PairedDifference paired_difference(std::span<const double> a,
                                                 std::span<const double> b);

// The half width of the 95 % interval of the difference between the means of two draws of n runs
// of one configuration: t(0.975, n - 1) s sqrt(2 / n), s from these n losses. A difference within
// it is what another choice of seeds makes. Nothing for fewer than two.
[[nodiscard]] std::optional<double> noise_floor(std::span<const double> losses);

}  // namespace wavroute
