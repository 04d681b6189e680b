// Sampling from a model, token by token.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "model/sampling.h"
#include "wavroute/decoder.h"

namespace wavroute {

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
