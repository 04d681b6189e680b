// Drawing a token from logits.
#pragma once

#include <cstdint>
#include <span>

namespace wavroute {

struct Sampling {
  double temperature = 0.8;  // 0: always the likeliest token
  int64_t top_k = 0;         // only the k likeliest; 0: all
  double top_p = 1.0;        // only the likeliest that add up to at least p
  double min_p = 0.0;        // only what has at least this share of the likeliest's probability
  double repetition_penalty = 1.0;  // of tokens that the sequence has; 1: none
  uint64_t seed = 1;
};

// Throws UserError for values out of range.
void check(const Sampling& sampling);

// Whether all are: no infinity, no NaN.
[[nodiscard]] bool are_finite(std::span<const float> logits);

// Draws a token from `logits` [V] with a number `uniform` in [0, 1). The filters and their order
// are those of `transformers`: repetition penalty (arXiv 1909.05858: logits of the tokens in `seen`
// are divided by it where they are positive, else multiplied), temperature, top-k, top-p, min-p. On
// a tie, the lower id counts as likelier. Tokens in `seen` may repeat; UserError for one that is
// not below V.
[[nodiscard]] uint32_t sample_token(std::span<const float> logits, const Sampling& sampling,
                                    double uniform, std::span<const uint32_t> seen = {});

}  // namespace wavroute
