#include "config/rope_scaling.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "config/literal.h"

namespace wavroute {
namespace {

// The dimension that turns `rotations` times within the original context.
double correction_dimension(double rotations, double width, double theta, double original) {
  return width * std::log(original / (rotations * 2 * std::numbers::pi)) / (2 * std::log(theta));
}

void scale_yarn(std::span<double> frequencies, double theta, const RopeScaling& s) {
  const auto width = static_cast<double>(2 * frequencies.size());
  const auto original = static_cast<double>(s.original_max_position_embeddings);
  double low = correction_dimension(s.beta_fast, width, theta, original);
  double high = correction_dimension(s.beta_slow, width, theta, original);
  if (s.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, width - 1);
  if (low == high) high += 0.001;  // no division by zero
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    frequencies[i] = frequencies[i] / s.factor * ramp + frequencies[i] * (1 - ramp);
  }
}

void scale_llama3(std::span<double> frequencies, const RopeScaling& s) {
  const auto original = static_cast<double>(s.original_max_position_embeddings);
  for (double& frequency : frequencies) {
    const double wavelength = 2 * std::numbers::pi / frequency;
    if (wavelength < original / s.high_freq_factor) continue;
    if (wavelength > original / s.low_freq_factor) {
      frequency /= s.factor;
      continue;
    }
    const double smooth =
        (original / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
    frequency = (1 - smooth) * frequency / s.factor + smooth * frequency;
  }
}

}  // namespace

void scale_frequencies(std::span<double> frequencies, double theta, const RopeScaling& scaling) {
  switch (scaling.rope_type) {
    case RopeType::kDefault:
      return;
    case RopeType::kLinear:
      for (double& frequency : frequencies) frequency /= scaling.factor;
      return;
    case RopeType::kLlama3:
      return scale_llama3(frequencies, scaling);
    case RopeType::kYarn:
      return scale_yarn(frequencies, theta, scaling);
  }
}

double attention_factor(const RopeScaling& scaling) {
  if (scaling.rope_type != RopeType::kYarn) return 1.0;
  if (scaling.attention_factor) return *scaling.attention_factor;
  return scaling.factor <= 1 ? 1.0 : 0.1 * std::log(scaling.factor) + 1.0;
}

RopeScaling resolved(RopeScaling scaling, int64_t context) {
  const bool has_original =
      scaling.rope_type == RopeType::kLlama3 || scaling.rope_type == RopeType::kYarn;
  if (has_original && scaling.original_max_position_embeddings == 0) {
    scaling.original_max_position_embeddings = context;
  }
  return scaling;
}

std::optional<RopeFault> find_rope_fault(const RopeScaling& s) {
  constexpr double kLargest = 1e9;  // [ours]
  const auto within = [](double value, double low, double high) {
    return value >= low && value <= high;  // false for a NaN
  };
  const auto fault = [](const char* key, const std::string& expected, double given) {
    return RopeFault{fmt::format("{} {}", key, expected), fmt::format("{}", given)};
  };
  if (s.rope_type == RopeType::kDefault) return std::nullopt;
  if (!within(s.factor, 1, kLargest)) return fault("a factor", "of at least 1", s.factor);
  if (s.rope_type == RopeType::kLinear) return std::nullopt;
  if (!within(static_cast<double>(s.original_max_position_embeddings), 0, 2147483647)) {
    return fault("original_max_position_embeddings", "of at least 0",
                 static_cast<double>(s.original_max_position_embeddings));
  }
  if (s.rope_type == RopeType::kLlama3) {
    if (!within(s.low_freq_factor, 1e-6, kLargest)) {
      return fault("low_freq_factor", "above 0", s.low_freq_factor);
    }
    if (!within(s.high_freq_factor, s.low_freq_factor * (1 + 1e-6), kLargest)) {
      return fault("high_freq_factor", "above low_freq_factor", s.high_freq_factor);
    }
    return std::nullopt;
  }
  if (!within(s.beta_slow, 1e-6, kLargest)) return fault("beta_slow", "above 0", s.beta_slow);
  if (!within(s.beta_fast, s.beta_slow, kLargest)) {
    return fault("beta_fast", "of at least beta_slow", s.beta_fast);
  }
  if (s.attention_factor && !within(*s.attention_factor, 1e-6, kLargest)) {
    return fault("attention_factor", "above 0", *s.attention_factor);
  }
  return std::nullopt;
}

std::string literal(const RopeScaling& s) {
  if (s.rope_type == RopeType::kDefault) return literal(std::string("default"));
  std::string text = fmt::format("{{rope_type = {}, factor = {}", literal(to_string(s.rope_type)),
                                 literal(s.factor));
  const auto add = [&](const char* key, const std::string& value) {
    text += fmt::format(", {} = {}", key, value);
  };
  if (s.rope_type != RopeType::kLinear) {
    add("original_max_position_embeddings", literal(s.original_max_position_embeddings));
  }
  if (s.rope_type == RopeType::kLlama3) {
    add("low_freq_factor", literal(s.low_freq_factor));
    add("high_freq_factor", literal(s.high_freq_factor));
  }
  if (s.rope_type == RopeType::kYarn) {
    add("beta_fast", literal(s.beta_fast));
    add("beta_slow", literal(s.beta_slow));
    if (s.attention_factor) add("attention_factor", literal(*s.attention_factor));
    if (!s.truncate) add("truncate", literal(s.truncate));
  }
  return text + "}";
}

}  // namespace wavroute
