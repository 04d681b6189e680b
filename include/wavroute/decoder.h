// The decoder-only transformer: a Llama whose residual stream is a scheme of the registry.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "wavroute/config.h"
#include "wavroute/parameters.h"
#include "wavroute/residual.h"

namespace wavroute {

[[nodiscard]] at::ScalarType storage_type(Precision precision);
[[nodiscard]] at::ScalarType compute_type(Precision precision);

// Everything that defines a model's function, except the parameters.
struct DecoderSpec {
  ModelConfig model;  // kv_heads and hidden resolved
  int64_t vocab_size = 256;
  std::string scheme = "prenorm";
  Options options;  // of the scheme
};

// The layers that a pass executes, in order; layers may be left out and repeated.
class LayerProgram {
 public:
  // All layers once.
  explicit LayerProgram(int64_t layers);
  // "0-11,12x3,14-23": layer numbers from 0, ranges inclusive, xN repeats a layer or range.
  // "every-other": layers 0, 2, 4, ... "@FILE": a JSON list of layers. Throws UserError.
  static LayerProgram parse(const std::string& text, int64_t layers);
  // The layers `order`, at least one, each below `layers`.
  LayerProgram(std::vector<int64_t> order, int64_t layers);

  [[nodiscard]] const std::vector<int64_t>& layers() const { return order_; }
  // True: every layer once, in order.
  [[nodiscard]] bool is_plain() const { return plain_; }
  [[nodiscard]] LayerOrder order() const;
  // As parse() takes it.
  [[nodiscard]] std::string text() const;

 private:
  std::vector<int64_t> order_;
  bool plain_ = true;
};

class RecordedTokens;

// Keys and values, and what the scheme keeps, of B sequences.
struct InferenceState {
  std::vector<int64_t> positions;        // [B] tokens seen
  int64_t capacity = 0;                  // of each
  std::vector<at::Tensor> keys, values;  // per visit [B, kv_heads, capacity, head width]
  std::unique_ptr<DecodeState> residual;
  // Of the last pass, where it can begin again: opening one costs as much as several reads. It may
  // hold what follows from the parameters, which must not change while a state is in use.
  std::unique_ptr<Stream> stream;
  // The pass of one token of each sequence, which a back end with ops::DeviceSteps records and
  // starts again. A state that gets another `residual` must lose it.
  std::shared_ptr<RecordedTokens> tokens;
  bool records = true;          // false: such a pass runs as it is
  std::string trouble;          // why it had to; empty: it hadn't
  at::Tensor device_positions;  // [B] of a pass that is being recorded; undefined in any other

  // Sequence b alone, to take its prompt in: shares keys and values. Its position is to be copied
  // back. Only where `residual` is null.
  [[nodiscard]] InferenceState sequence(int64_t b) const;
};

struct ForwardOptions {
  Progress progress;                      // of a model in training
  const LayerProgram* program = nullptr;  // null: all layers once
  InferenceState* state = nullptr;        // null: no cache
  Taps* taps = nullptr;
  bool last_only = false;  // logits of the last position alone
};

struct ForwardResult {
  at::Tensor logits;      // [B, T or 1, V] in the storage type
  at::Tensor auxiliary;   // scalar, undefined where the scheme has none
  at::Tensor mean_depth;  // scalar, undefined where every token goes through all layers
};

class Sublayer;
namespace ops {
struct PassNeeds;
}

class Decoder {
 public:
  // Builds the model with the initial values of `seed`. Throws UserError for sizes or options that
  // contradict each other.
  Decoder(DecoderSpec spec, Precision precision, at::Device device, uint64_t seed);
  // Without memory for the parameters: names and shapes are known, allocate() makes the values;
  // zeros without a seed, for values that are read from a file.
  Decoder(DecoderSpec spec, Precision precision, at::Device device);
  void allocate(std::optional<uint64_t> seed);
  ~Decoder();
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  // ids [B,T] int64, on the model's device or the CPU.
  [[nodiscard]] ForwardResult forward(const at::Tensor& ids, const ForwardOptions& options) const;
  // For up to `capacity` tokens of `batch` sequences.
  [[nodiscard]] InferenceState inference_state(int64_t batch, int64_t capacity,
                                               const LayerProgram* program = nullptr) const;
  // Throws UserError where the scheme doesn't take this program.
  void check_program(const LayerProgram& program) const;

  // The pieces, for a pass that drives them itself.
  [[nodiscard]] PreNorm final_norm() const;
  [[nodiscard]] at::Tensor head(const at::Tensor& x) const;  // [B,T,d] after the norm -> [B,T,V]
  [[nodiscard]] Parameter& head_weight() const { return *head_; }
  [[nodiscard]] const Sublayer& sublayer(const Site& site) const;
  [[nodiscard]] Parameter& embedding() const { return *embedding_; }

  // Rounds the matrices of products to ggml's blocks of q8_0, for passes with a cache; the
  // embedding stays as it is. Throws UserError for rows that are no multiple of 32.
  void quantise();

  // Throws UserError where our kernels don't serve the device or the precision.
  void use_kernels(KernelChoice choice);
  // A back end of the caller's, of the model's device, in the place of our kernels.
  void use_backend(std::unique_ptr<ops::Backend> backend);
  // What passes run on, and the optimizer.
  [[nodiscard]] ops::Backend& backend() const { return *backend_; }
  // What a pass with these needs runs on: backend(), or stock operators where that lacks one.
  [[nodiscard]] ops::Backend& backend_for(const ops::PassNeeds& needs) const;

  [[nodiscard]] ParameterTable& parameters() { return table_; }
  [[nodiscard]] const ParameterTable& parameters() const { return table_; }
  [[nodiscard]] const Residual& residual() const { return *residual_; }
  [[nodiscard]] Residual& residual() { return *residual_; }
  [[nodiscard]] const DecoderSpec& spec() const { return spec_; }
  [[nodiscard]] Precision precision() const { return precision_; }
  [[nodiscard]] at::Device device() const { return device_; }

 private:
  void declare_parameters();
  // forward() of ids on the device.
  [[nodiscard]] ForwardResult run(const at::Tensor& ids, const ForwardOptions& options,
                                  const LayerProgram& program, ops::Backend& backend) const;
  [[nodiscard]] at::Tensor head_of(const at::Tensor& x, ops::Backend& backend) const;

  DecoderSpec spec_;
  Precision precision_;
  at::Device device_;
  std::unique_ptr<ops::Backend> composed_;
  std::unique_ptr<ops::Backend> ours_;  // null where our kernels don't serve
  ops::Backend* backend_ = nullptr;     // one of them
  std::unique_ptr<Residual> residual_;
  ParameterTable table_;
  Parameter* embedding_ = nullptr;
  Parameter* norm_ = nullptr;
  Parameter* head_ = nullptr;                         // == embedding_ if tied
  std::vector<std::unique_ptr<Sublayer>> sublayers_;  // two per stored layer
};

}  // namespace wavroute
