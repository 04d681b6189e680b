// Which tokens each training step and each evaluation sees.
#pragma once

#include <cstdint>
#include <span>

#include "base/philox.h"
#include "data/token_file.h"
#include "wavroute/tokenizer.h"

namespace wavroute {

// A permutation of 0..count-1 for every epoch, computed place by place: a Feistel network over the
// next power of four, applied until the result is below `count`. Depends on count, seed and epoch
// alone; no state, O(1) a place.
class Permutation {
 public:
  Permutation(int64_t count, uint64_t seed);
  [[nodiscard]] int64_t count() const noexcept { return count_; }
  [[nodiscard]] int64_t at(int64_t place, int64_t epoch) const noexcept;

 private:
  [[nodiscard]] uint64_t encrypt(uint64_t value, uint64_t epoch) const noexcept;

  int64_t count_;
  int half_bits_ = 0;  // the network permutes 0..4^half_bits_-1
  Philox random_;
};

// The training batches. The windows are the non-overlapping pieces of T + 1 tokens; row i of step s
// holds the window at place s * batch + i of an endless sequence of permuted epochs.
class TrainingBatches {
 public:
  // `context` = T. UserError where `tokens` are fewer than one window.
  TrainingBatches(TokenView tokens, int64_t context, int64_t batch, uint64_t seed);

  [[nodiscard]] int64_t count() const noexcept { return order_.count(); }  // windows
  [[nodiscard]] int64_t window(int64_t step, int64_t row) const noexcept;
  [[nodiscard]] int64_t batch() const noexcept { return batch_; }  // rows of a step
  [[nodiscard]] int64_t context() const noexcept { return context_; }
  // Fills a step's batch: inputs and targets are (batch, T), targets one token ahead.
  void fill(int64_t step, std::span<int64_t> inputs, std::span<int64_t> targets) const;

 private:
  TokenView tokens_;
  int64_t context_;
  int64_t batch_;
  Permutation order_;
};

// The windows of an evaluation: stride T over the tokens, so that every token but the first, which
// has no predecessor, is a target exactly once, at most `eval_tokens` of them from the start.
class EvalWindows {
 public:
  static constexpr int64_t kIgnored = -100;  // the target at positions that are not scored

  // eval_tokens <= 0: all. Tokens fewer than T + 1 are one window, the rest of it unscored;
  // UserError for fewer than two.
  EvalWindows(TokenView tokens, int64_t context, int64_t eval_tokens);

  [[nodiscard]] int64_t count() const noexcept;  // windows
  [[nodiscard]] int64_t context() const noexcept { return context_; }
  [[nodiscard]] int64_t scored_tokens() const noexcept { return scored_; }
  // The UTF-8 bytes that the scored tokens stand for:
  // bits per byte = nats per token * scored_tokens / scored_bytes / ln 2.
  [[nodiscard]] int64_t scored_bytes(const Tokenizer& tokenizer) const;
  // Fills the windows [begin, end): inputs and targets are (end - begin, T). Places past the end
  // have input 0 and target kIgnored.
  void fill(int64_t begin, int64_t end, std::span<int64_t> inputs,
            std::span<int64_t> targets) const;

 private:
  TokenView tokens_;
  int64_t context_;
  int64_t scored_;
};

// UserError where `tokens` can't fill one sequence of `context` tokens and the one after it.
void require_one_sequence(const TokenView& tokens, int64_t context);

}  // namespace wavroute
