// Small models for tests, with values at which every term of a formula has an effect.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "model/training_pass.h"
#include "ops/backend.h"
#include "tests/error_ratio.h"
#include "wavroute/decoder.h"

namespace wavroute::testing {

// A scheme with the options and the depth that a test runs it at.
struct SchemeCase {
  std::string label;  // letters, digits and underscores
  std::string scheme;
  Options options;
  int64_t layers = 4;
};

// How a failing test names its case.
inline void PrintTo(const SchemeCase& scheme_case, std::ostream* out) { *out << scheme_case.label; }

// Every scheme of the registry with its defaults, and settings that take other paths through the
// code.
[[nodiscard]] std::vector<SchemeCase> scheme_cases();

// 4 layers of width 16, 2 heads that share a key-value head, a context of 9, 17 tokens.
[[nodiscard]] DecoderSpec small_spec(const std::string& scheme, Options options = {},
                                     int64_t layers = 4);
[[nodiscard]] DecoderSpec small_spec(const SchemeCase& scheme_case);

// A model with its initial values.
[[nodiscard]] std::unique_ptr<Decoder> fresh_model(const DecoderSpec& spec,
                                                   Precision precision = Precision::kFp64,
                                                   uint64_t seed = 1, at::Device device = at::kCPU);
// A model whose every parameter is random around its initial value: no zero query, no unit gain.
[[nodiscard]] std::unique_ptr<Decoder> scattered_model(const DecoderSpec& spec,
                                                       Precision precision = Precision::kFp64,
                                                       at::Device device = at::kCPU);
// Adds N(0, 0.3), keyed by `draw` and checkpoint names, to every parameter whose name holds none of
// `except`.
void scatter(Decoder& model, const std::vector<std::string>& except = {}, uint64_t draw = 1);
// Sets every parameter whose name ends in `suffix`; fails the test where there is none.
void set_values(Decoder& model, std::string_view suffix, double value);

// The logits of ids [B,T] from a cache that is fed `pieces` tokens at a time, on the CPU.
[[nodiscard]] at::Tensor logits_in_pieces(const Decoder& model, const at::Tensor& ids,
                                          const std::vector<int64_t>& pieces);
// A prompt, then token by token: `prompt`, 1, 1, ... of `length` tokens.
[[nodiscard]] std::vector<int64_t> prompt_and_tokens(int64_t prompt, int64_t length);

// Copies of all parameters (or their gradients) under their checkpoint names, on the CPU.
using NamedTensors = std::map<std::string, at::Tensor>;
[[nodiscard]] NamedTensors values_of(const Decoder& model);
[[nodiscard]] NamedTensors gradients_of(const Decoder& model);
// All of them end to end, in double.
[[nodiscard]] at::Tensor all_of(const NamedTensors& tensors);

// [rows, length] random ids below the small models' vocabulary.
[[nodiscard]] at::Tensor random_tokens(int64_t rows, int64_t length, std::string_view name = "ids");

// In the middle of training: gates are open and layers are drawn.
[[nodiscard]] Pass training();

// Logits, sums and gradients of one pass over 2 rows of 9 tokens, from zeroed gradients; on the
// CPU.
struct PassRecord {
  PassResult sums;
  at::Tensor logits;
  NamedTensors gradients;
};
[[nodiscard]] PassRecord record_pass(Decoder& model, const Pass& pass,
                                     Recompute recompute = Recompute::kNone);

// The logits of all positions without a cache, on the CPU.
[[nodiscard]] at::Tensor logits_of(const Decoder& model, const at::Tensor& ids,
                                   const LayerProgram* program = nullptr);

// The final norm and the output projection of a read-out [B,T,d].
[[nodiscard]] at::Tensor logits_after(const Decoder& model, const at::Tensor& read_out);

// Largest absolute difference; infinity where it is not a number.
[[nodiscard]] double difference(const at::Tensor& a, const at::Tensor& b);
// Root mean square of the error, relative to that of `exact`, which is in double.
[[nodiscard]] double error_of(const at::Tensor& actual, const at::Tensor& exact);

// Expects the same names, and the same bits (tolerance 0) or values within `tolerance`.
void expect_equal(const NamedTensors& actual, const NamedTensors& expected, double tolerance = 0.0);

// Records everything that a pass reports to taps.
class RecordingTaps final : public Taps {
 public:
  struct Read {
    std::optional<Site> site;
    std::vector<SourceLabel> sources;
    at::Tensor weights;
  };

  void on_weights(const std::optional<Site>& site, std::span<const SourceLabel> sources,
                  const at::Tensor& weights) override {
    reads.push_back({site, {sources.begin(), sources.end()}, weights.clone()});
  }
  void on_gate(const Site&, const at::Tensor& alpha) override { gates.push_back(alpha.clone()); }
  void on_depth(const at::Tensor& value) override { depth = value.clone(); }

  std::vector<Read> reads;
  std::vector<at::Tensor> gates;
  at::Tensor depth;
};

// e of `ids`, and a stream's options, on the back end of `model`.
inline at::Tensor embedded(const Decoder& model, const at::Tensor& ids) {
  return model.backend().embed(model.embedding().value, ids).detach();
}
inline StreamOptions on_backend(ops::Backend& backend) {
  StreamOptions options;
  options.backend = &backend;
  return options;
}

}  // namespace wavroute::testing
