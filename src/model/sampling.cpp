#include "model/sampling.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "wavroute/error.h"

namespace wavroute {
namespace {

// Numbers that are looked at together, which compiles to vectors.
constexpr size_t kTogether = 32;

// The first of the largest of finite logits.
uint32_t likeliest(std::span<const float> logits) {
  std::array<float, kTogether> largest{};
  largest.fill(-std::numeric_limits<float>::infinity());
  size_t i = 0;
  for (; i + kTogether <= logits.size(); i += kTogether) {
    for (size_t j = 0; j < kTogether; ++j) {
      largest[j] = logits[i + j] > largest[j] ? logits[i + j] : largest[j];
    }
  }
  float best = *std::ranges::max_element(largest);
  for (; i < logits.size(); ++i) best = std::max(best, logits[i]);
  return static_cast<uint32_t>(std::ranges::find(logits, best) - logits.begin());
}

// Whether token a comes after b, the likelier one first.
struct IsAfter {
  std::span<const float> logits;
  bool operator()(uint32_t a, uint32_t b) const {
    return logits[a] != logits[b] ? logits[a] < logits[b] : a > b;
  }
};

// Tokens from the likeliest on, sorted only as far as they are asked for.
class Ranking {
 public:
  explicit Ranking(std::span<const float> logits) : logits_(logits), heap_(logits.size()) {
    std::iota(heap_.begin(), heap_.end(), 0U);
    std::make_heap(heap_.begin(), heap_.end(), IsAfter{logits_});
  }
  [[nodiscard]] size_t size() const { return logits_.size(); }
  [[nodiscard]] uint32_t operator[](size_t rank) {
    while (sorted_.size() <= rank) {
      std::pop_heap(heap_.begin(), heap_.end(), IsAfter{logits_});
      sorted_.push_back(heap_.back());
      heap_.pop_back();
    }
    return sorted_[rank];
  }
  [[nodiscard]] float logit(size_t rank) { return logits_[(*this)[rank]]; }

 private:
  std::span<const float> logits_;
  std::vector<uint32_t> heap_, sorted_;
};

std::vector<float> penalised(std::span<const float> logits, double penalty,
                             std::span<const uint32_t> seen) {
  std::vector<float> result(logits.begin(), logits.end());
  for (const uint32_t id : seen) {
    if (id >= result.size()) {
      throw expected(fmt::format("a token id below {}", result.size()), id, "among those seen");
    }
    const double logit = logits[id];
    result[id] = static_cast<float>(logit > 0 ? logit / penalty : logit * penalty);
  }
  return result;
}

// The draw after the penalty.
uint32_t draw(std::span<const float> logits, const Sampling& sampling, double uniform) {
  if (sampling.temperature == 0.0) {
    return likeliest(logits);
  }
  Ranking ranking(logits);
  const double best = ranking.logit(0);
  // Relative to that of the likeliest.
  const auto weight = [&](double logit) { return std::exp((logit - best) / sampling.temperature); };
  size_t kept = ranking.size();
  if (sampling.top_k > 0) kept = std::min(kept, static_cast<size_t>(sampling.top_k));
  const auto sum_of_kept = [&] {
    double total = 0.0;
    if (kept == ranking.size()) {
      for (const float logit : logits) total += weight(logit);
    } else {
      for (size_t i = 0; i < kept; ++i) total += weight(ranking.logit(i));
    }
    return total;
  };
  double total = sum_of_kept();
  if (sampling.top_p < 1.0) {
    const double enough = sampling.top_p * total;
    double mass = 0.0;
    for (size_t i = 0; i < kept; ++i) {
      mass += weight(ranking.logit(i));
      if (mass >= enough) kept = i + 1;
    }
    total = sum_of_kept();
  }
  if (sampling.min_p > 0.0) {
    for (size_t i = 1; i < kept; ++i) {
      if (weight(ranking.logit(i)) < sampling.min_p) kept = i;
    }
    total = sum_of_kept();
  }
  double left = uniform * total;
  for (size_t i = 0; i + 1 < kept; ++i) {
    left -= weight(ranking.logit(i));
    if (left < 0.0) return ranking[i];
  }
  return ranking[kept - 1];
}

}  // namespace

bool are_finite(std::span<const float> logits) {
  std::array<uint32_t, kTogether> sizes{};  // the bits of the largest of each
  constexpr uint32_t kSize = 0x7FFFFFFFU, kInfinite = 0x7F800000U;
  size_t i = 0;
  for (; i + kTogether <= logits.size(); i += kTogether) {
    for (size_t j = 0; j < kTogether; ++j) {
      sizes[j] = std::max(sizes[j], std::bit_cast<uint32_t>(logits[i + j]) & kSize);
    }
  }
  uint32_t largest = *std::ranges::max_element(sizes);
  for (; i < logits.size(); ++i) {
    largest = std::max(largest, std::bit_cast<uint32_t>(logits[i]) & kSize);
  }
  return largest < kInfinite;
}

void check(const Sampling& sampling) {
  if (!(sampling.temperature >= 0.0) || !std::isfinite(sampling.temperature)) {
    throw expected("a temperature of 0 or more", sampling.temperature);
  }
  if (sampling.top_k < 0) {
    throw expected("a top-k of 0 (all) or more", sampling.top_k);
  }
  if (!(sampling.top_p > 0.0 && sampling.top_p <= 1.0)) {
    throw expected("a top-p above 0 and at most 1", sampling.top_p);
  }
  if (!(sampling.min_p >= 0.0 && sampling.min_p <= 1.0)) {
    throw expected("a min-p from 0 to 1", sampling.min_p);
  }
  if (!(sampling.repetition_penalty > 0.0) || !std::isfinite(sampling.repetition_penalty)) {
    throw expected("a repetition penalty above 0", sampling.repetition_penalty);
  }
}

uint32_t sample_token(std::span<const float> logits, const Sampling& sampling, double uniform,
                      std::span<const uint32_t> seen) {
  if (sampling.repetition_penalty == 1.0) return draw(logits, sampling, uniform);
  return draw(penalised(logits, sampling.repetition_penalty, seen), sampling, uniform);
}

}  // namespace wavroute
