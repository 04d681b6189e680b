// Sampling from a model, token by token.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "model/sampling.h"
#include "wavroute/decoder.h"

namespace wavroute {

struct GenerationResult {
  std::vector<std::vector<uint32_t>> ids;  // the new tokens of each prompt
  double prefill_seconds = 0.0;            // until every prompt's first token
  double decode_seconds = 0.0;             // of all tokens after the first ones
  double mean_depth = 0.0;                 // layers per new token; 0: all
  int64_t cache_bytes = 0;                 // of keys and values, with room for all tokens
  std::string trouble;                     // InferenceState::trouble
};

// Bytes of keys and values that a pass keeps for each token of a sequence.
[[nodiscard]] double cache_bytes_per_token(const Decoder& model, const LayerProgram* program);

// How many of `prompts` prompts are decoded together: each has a cache of its own.
[[nodiscard]] size_t prompts_at_once(const Decoder& model, size_t prompts);

// Gets prompt `index`'s next token when it is drawn; false stops that prompt.
using OnToken = std::function<bool(size_t index, uint32_t token)>;

// Continues each of `prompts` (at least one token each) by up to `tokens`. Prompts of any lengths
// are decoded together, and on our kernels each gets the very tokens that it would get alone. The
// n-th draw of each depends on the seed and n alone.
[[nodiscard]] GenerationResult generate(const Decoder& model,
                                        const std::vector<std::vector<uint32_t>>& prompts,
                                        int64_t tokens, const Sampling& sampling,
                                        const LayerProgram* program, const Progress& progress,
                                        const OnToken& on_token);

// Continues one text again and again, as a conversation does, and reads only what is new: the keys
// and values of the longest beginning that a prompt shares with the text before it stay. Where a
// scheme keeps more than these (gated), every prompt is read as a whole.
class Continuation {
 public:
  // `model` and `program` outlive it.
  Continuation(const Decoder& model, const LayerProgram* program)
      : model_(model), program_(program) {}

  // As generate() for this prompt alone, but the draws go on where the last call ended.
  [[nodiscard]] GenerationResult run(const std::vector<uint32_t>& prompt, int64_t tokens,
                                     const Sampling& sampling, const OnToken& on_token);
  // How many tokens of the last prompt were not read again.
  [[nodiscard]] size_t reused() const { return reused_; }

 private:
  // Keeps the first `kept` tokens, with room for `capacity`.
  [[nodiscard]] InferenceState state_for(int64_t capacity, int64_t kept);

  const Decoder& model_;
  const LayerProgram* program_;
  InferenceState state_;
  std::vector<uint32_t> read_;  // whose keys and values are in state_
  size_t reused_ = 0;
  uint64_t draws_ = 0;
};

}  // namespace wavroute
