#include "data/batches.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "data/scored_bytes.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

constexpr uint64_t kFeistelRounds = 6;

void require_size(std::span<int64_t> inputs, std::span<int64_t> targets, int64_t rows,
                  int64_t context) {
  const auto needed = static_cast<size_t>(rows * context);
  if (rows < 0 || inputs.size() != needed || targets.size() != needed) {
    throw Failure(
        expectation(fmt::format("room for {} rows of {} tokens", rows, context),
                    fmt::format("{} inputs and {} targets", inputs.size(), targets.size())));
  }
}

}  // namespace

void require_one_sequence(const TokenView& tokens, int64_t context) {
  if (tokens.size() > context) return;
  throw expected(fmt::format("at least {} tokens (model.context + 1)", context + 1), tokens.size(),
                 fmt::format("in {}", tokens.name()),
                 "use a longer text, or a smaller model.context");
}

Permutation::Permutation(int64_t count, uint64_t seed) : count_(count), random_(seed, "order") {
  while ((uint64_t{1} << (2 * half_bits_)) < static_cast<uint64_t>(count)) ++half_bits_;
}

uint64_t Permutation::encrypt(uint64_t value, uint64_t epoch) const noexcept {
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  uint64_t left = value >> half_bits_, right = value & mask;
  for (uint64_t round = 0; round < kFeistelRounds; ++round) {
    const uint64_t mixed = random_.bits((round << 32) | right, epoch)[0];
    left = std::exchange(right, left ^ (mixed & mask));
  }
  return (left << half_bits_) | right;
}

int64_t Permutation::at(int64_t place, int64_t epoch) const noexcept {
  auto value = static_cast<uint64_t>(place);
  do {
    value = encrypt(value, static_cast<uint64_t>(epoch));
  } while (value >= static_cast<uint64_t>(count_));
  return static_cast<int64_t>(value);
}

TrainingBatches::TrainingBatches(TokenView tokens, int64_t context, int64_t batch, uint64_t seed)
    : tokens_(std::move(tokens)),
      context_(context),
      batch_(batch),
      order_(tokens_.size() / (context + 1), seed) {
  require_one_sequence(tokens_, context);
}

int64_t TrainingBatches::window(int64_t step, int64_t row) const noexcept {
  const int64_t index = step * batch_ + row;
  return order_.at(index % order_.count(), index / order_.count());
}

void TrainingBatches::fill(int64_t step, std::span<int64_t> inputs,
                           std::span<int64_t> targets) const {
  require_size(inputs, targets, batch_, context_);
  const auto length = static_cast<size_t>(context_);
  std::vector<int64_t> tokens(length + 1);
  for (int64_t row = 0; row < batch_; ++row) {
    tokens_.copy(window(step, row) * (context_ + 1), tokens);
    const size_t at = static_cast<size_t>(row) * length;
    std::copy_n(tokens.begin(), length, inputs.subspan(at).begin());
    std::copy_n(tokens.begin() + 1, length, targets.subspan(at).begin());
  }
}

EvalWindows::EvalWindows(TokenView tokens, int64_t context, int64_t eval_tokens)
    : tokens_(std::move(tokens)), context_(context), scored_(tokens_.size() - 1) {
  if (scored_ < 1) {
    throw expected("at least 2 tokens (the first is not scored)", tokens_.size(),
                   fmt::format("in {}", tokens_.name()), "use a longer text");
  }
  if (eval_tokens > 0) scored_ = std::min(scored_, eval_tokens);
}

int64_t EvalWindows::count() const noexcept { return (scored_ + context_ - 1) / context_; }

int64_t EvalWindows::scored_bytes(const Tokenizer& tokenizer) const {
  const ScoredBytes scored(tokenizer);
  int64_t bytes = 0;
  for (int64_t i = 1; i <= scored_; ++i) bytes += scored.of(tokens_.at(i));
  return bytes;
}

void EvalWindows::fill(int64_t begin, int64_t end, std::span<int64_t> inputs,
                       std::span<int64_t> targets) const {
  require_size(inputs, targets, end - begin, context_);
  std::fill(inputs.begin(), inputs.end(), 0);
  std::fill(targets.begin(), targets.end(), kIgnored);
  const int64_t first = begin * context_;
  const int64_t length = std::min((end - begin) * context_, scored_ - first);
  if (length <= 0) return;
  // Windows are contiguous, so that several are one copy.
  tokens_.copy(first, inputs.first(static_cast<size_t>(length)));
  tokens_.copy(first + 1, targets.first(static_cast<size_t>(length)));
}

}  // namespace wavroute
