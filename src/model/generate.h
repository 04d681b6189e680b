// Sampling from a model, token by token.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "wavroute/decoder.h"

namespace wavroute {

struct Sampling {
  double temperature = 0.8;  // 0: always the likeliest token
  int64_t top_k = 0;         // only the k likeliest; 0: all
  double top_p = 1.0;        // only the likeliest that add up to at least p
  uint64_t seed = 1;
};

// Throws UserError for values out of range.
void check(const Sampling& sampling);

// Draws a token from `logits` [V] with a number `uniform` in [0, 1). Filters in the usual order:
// temperature, top-k, top-p. On a tie, the lower id counts as likelier.
[[nodiscard]] uint32_t sample_token(std::span<const float> logits, const Sampling& sampling,
                                    double uniform);

struct GenerationResult {
  std::vector<uint32_t> ids;  // new tokens
  double prefill_seconds = 0.0;
  double decode_seconds = 0.0;  // of all tokens after the first
  double mean_depth = 0.0;      // layers per new token; 0: all
};

// Bytes of keys and values that a pass keeps for each token of a sequence.
[[nodiscard]] double cache_bytes_per_token(const Decoder& model, const LayerProgram* program);

// Continues `prompt` (at least one token) by up to `tokens`; `on_token` gets each token when it is
// drawn, and returns false to stop. The n-th draw depends on the seed and n alone.
[[nodiscard]] GenerationResult generate(const Decoder& model, std::span<const uint32_t> prompt,
                                        int64_t tokens, const Sampling& sampling,
                                        const LayerProgram* program, const Progress& progress,
                                        const std::function<bool(uint32_t)>& on_token);

}  // namespace wavroute
