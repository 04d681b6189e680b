#include "model/generate.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <span>
#include <utility>

#include "base/philox.h"
#include "ops/decode.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// From where a batch goes on.
struct Beginning {
  InferenceState state;  // with room for all prompts and tokens
  size_t read = 0;       // tokens of each prompt that are in it
  uint64_t draws = 0;    // that were taken from the seed
};

// Sequences that are decoded together, each a token at a time.
class Batch {
 public:
  Batch(const Decoder& model, std::span<const std::vector<uint32_t>> prompts, Beginning beginning,
        int64_t tokens, const Sampling& sampling, const LayerProgram* program,
        const Progress& progress)
      : model_(model),
        prompts_(prompts),
        tokens_(tokens),
        sampling_(sampling),
        random_(sampling.seed, "sample"),
        program_(program),
        progress_(progress),
        state_(std::move(beginning.state)),
        read_(beginning.read),
        draws_(beginning.draws) {
    for (const auto& prompt : prompts) sequences_.push_back({prompt, {}, true});
  }

  // Appends the new tokens to result.ids and adds up its times and bytes; mean_depth becomes a sum.
  void run(const OnToken& on_token, GenerationResult& result) {
    auto start = std::chrono::steady_clock::now();
    for (size_t b = 0; b < sequences_.size(); ++b) take_prompt(b, on_token);
    result.prefill_seconds += seconds_since(start);
    start = std::chrono::steady_clock::now();
    for (int64_t n = 1; n < tokens_; ++n) {
      if (!std::ranges::any_of(sequences_, &Sequence::goes_on)) break;
      result.mean_depth += take_tokens(on_token);
    }
    result.decode_seconds += seconds_since(start);
    for (const auto* tensors : {&state_.keys, &state_.values}) {
      for (const at::Tensor& tensor : *tensors) {
        result.cache_bytes += static_cast<int64_t>(tensor.nbytes());
      }
    }
    for (Sequence& sequence : sequences_) result.ids.push_back(std::move(sequence.ids));
    if (result.trouble.empty()) result.trouble = state_.trouble;
  }
  [[nodiscard]] InferenceState take_state() { return std::move(state_); }

 private:
  struct Sequence {
    std::vector<uint32_t> seen;  // prompt and new tokens
    std::vector<uint32_t> ids;   // new tokens
    bool goes_on = true;
  };

  ForwardResult forward(const at::Tensor& ids, InferenceState& state) {
    const ForwardOptions options{progress_, program_, &state, nullptr, /*last_only=*/true};
    ForwardResult out = model_.forward(ids, options);
    out.logits = out.logits.select(1, 0).to(at::kFloat).cpu().contiguous();
    return out;
  }

  void draw(size_t b, const at::Tensor& logits, const OnToken& on_token) {
    Sequence& sequence = sequences_[b];
    const std::span row(logits.const_data_ptr<float>(), static_cast<size_t>(logits.numel()));
    if (!are_finite(row)) {
      throw Failure(expectation("finite logits", "others",
                                fmt::format("after {} tokens", sequence.seen.size())),
                    "the model holds values that are not finite or too large: use an earlier "
                    "checkpoint");
    }
    const auto n = static_cast<uint64_t>(sequence.ids.size());
    const uint32_t token = sample_token(row, sampling_, random_.uniform(draws_ + n), sequence.seen);
    sequence.ids.push_back(token);
    sequence.seen.push_back(token);
    sequence.goes_on = on_token(b, token);
  }

  void take_prompt(size_t b, const OnToken& on_token) {
    const auto& prompt = prompts_[b];
    const std::vector<int64_t> ids(prompt.begin() + static_cast<std::ptrdiff_t>(read_),
                                   prompt.end());
    const at::Tensor input = at::tensor(ids, at::kLong).view({1, std::ssize(ids)});
    if (sequences_.size() == 1) {
      draw(b, forward(input, state_).logits[0], on_token);
      return;
    }
    InferenceState one = state_.sequence(static_cast<int64_t>(b));
    draw(b, forward(input, one).logits[0], on_token);
    state_.positions[b] = one.positions[0];
  }

  // A token of every sequence; those that have stopped run on unseen. The layers that those that go
  // on took together.
  double take_tokens(const OnToken& on_token) {
    std::vector<int64_t> last;
    for (const Sequence& sequence : sequences_) last.push_back(sequence.seen.back());
    const ForwardResult out =
        forward(at::tensor(last, at::kLong).view({std::ssize(last), 1}), state_);
    double depth = 0.0;
    for (size_t b = 0; b < sequences_.size(); ++b) {
      if (!sequences_[b].goes_on) continue;
      draw(b, out.logits[static_cast<int64_t>(b)], on_token);
      if (out.mean_depth.defined()) depth += out.mean_depth.item<double>();
    }
    return depth;
  }

  const Decoder& model_;
  std::span<const std::vector<uint32_t>> prompts_;
  int64_t tokens_;
  const Sampling& sampling_;
  Philox random_;
  const LayerProgram* program_;
  const Progress& progress_;
  InferenceState state_;
  size_t read_;
  uint64_t draws_;
  std::vector<Sequence> sequences_;
};

// What a batch's prompts need at the start of their texts.
Beginning new_texts(const Decoder& model, std::span<const std::vector<uint32_t>> prompts,
                    int64_t tokens, const LayerProgram* program) {
  int64_t longest = 0;
  for (const auto& prompt : prompts) longest = std::max(longest, std::ssize(prompt));
  return {model.inference_state(std::ssize(prompts), longest + tokens, program)};
}

// The sum over new tokens becomes their mean.
void average_depth(GenerationResult& result) {
  if (result.mean_depth <= 0.0) return;
  int64_t later = 0;
  for (const auto& ids : result.ids) later += std::max<int64_t>(std::ssize(ids) - 1, 0);
  result.mean_depth /= static_cast<double>(std::max<int64_t>(later, 1));
}

}  // namespace

size_t prompts_at_once(const Decoder& model, size_t prompts) {
  // In products of a few tokens an element's bits don't depend on the others.
  constexpr size_t kMost = ops::kFewTokens;
  // What a scheme keeps besides keys and values is of all sequences together (gated).
  const bool apart = model.residual().decode_state() != nullptr;
  return std::min(prompts, apart ? 1 : kMost);
}

double cache_bytes_per_token(const Decoder& model, const LayerProgram* program) {
  const ModelConfig& m = model.spec().model;
  const double visits = static_cast<double>(program != nullptr ? program->layers().size()
                                                               : static_cast<size_t>(m.layers));
  const auto numbers = static_cast<double>(2 * m.kv_heads * m.head_width());
  return visits * numbers * static_cast<double>(c10::elementSize(compute_type(model.precision())));
}

GenerationResult generate(const Decoder& model, const std::vector<std::vector<uint32_t>>& prompts,
                          int64_t tokens, const Sampling& sampling, const LayerProgram* program,
                          const Progress& progress, const OnToken& on_token) {
  check(sampling);
  GenerationResult result;
  for (size_t first = 0; first < prompts.size();) {
    const size_t count = prompts_at_once(model, prompts.size() - first);
    const std::span<const std::vector<uint32_t>> some(prompts.data() + first, count);
    Batch batch(model, some, new_texts(model, some, tokens, program), tokens, sampling, program,
                progress);
    batch.run([&](size_t index, uint32_t token) { return on_token(first + index, token); }, result);
    first += count;
  }
  average_depth(result);
  return result;
}

InferenceState Continuation::state_for(int64_t capacity, int64_t kept) {
  if (state_.capacity < capacity) {
    InferenceState larger = model_.inference_state(1, capacity, program_);
    for (size_t i = 0; kept > 0 && i < larger.keys.size(); ++i) {
      larger.keys[i].narrow(2, 0, kept).copy_(state_.keys[i].narrow(2, 0, kept));
      larger.values[i].narrow(2, 0, kept).copy_(state_.values[i].narrow(2, 0, kept));
    }
    state_ = std::move(larger);
  }
  state_.positions = {kept};
  if (state_.residual != nullptr) state_.tokens.reset();
  state_.residual = model_.residual().decode_state();
  return std::exchange(state_, {});
}

GenerationResult Continuation::run(const std::vector<uint32_t>& prompt, int64_t tokens,
                                   const Sampling& sampling, const OnToken& on_token) {
  check(sampling);
  const auto shared = std::ranges::mismatch(prompt, read_).in1 - prompt.begin();
  const bool can_keep = model_.residual().decode_state() == nullptr;
  // The last token is read in any case: its logits are what the first new one is drawn from.
  const auto kept = can_keep ? std::min<int64_t>(shared, std::ssize(prompt) - 1) : 0;
  reused_ = static_cast<size_t>(kept);
  read_.clear();  // until all is well
  const Progress progress;
  GenerationResult result;
  Batch batch(model_, {&prompt, 1}, {state_for(std::ssize(prompt) + tokens, kept), reused_, draws_},
              tokens, sampling, program_, progress);
  batch.run(on_token, result);
  state_ = batch.take_state();
  draws_ += result.ids[0].size();
  read_ = prompt;
  read_.insert(read_.end(), result.ids[0].begin(), result.ids[0].end());
  read_.resize(static_cast<size_t>(state_.positions[0]));  // the last token was drawn, not read
  average_depth(result);
  return result;
}

}  // namespace wavroute
