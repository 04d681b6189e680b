// The interface of every residual scheme: how a sublayer's input is read from what earlier
// sublayers wrote.
//
// Shapes: B sequences, T positions, d width. A sublayer is half a layer: attention or MLP.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "wavroute/options.h"
#include "wavroute/parameters.h"

namespace wavroute {

namespace ops {
class Backend;
}
class Coefficients;

enum class SublayerKind { kAttention, kMlp };

// One execution of one sublayer.
struct Site {
  int64_t layer = 0;  // from 0
  SublayerKind kind = SublayerKind::kAttention;
  int64_t visit = 0;  // place of this execution of the layer in the layer program, from 0

  // The one of index() `index` where every layer runs once, in order.
  [[nodiscard]] static Site at(int64_t index) {
    const auto kind = index % 2 == 0 ? SublayerKind::kAttention : SublayerKind::kMlp;
    return {index / 2, kind, index / 2};
  }

  // l - 1 of method.md: from 0, attention even.
  [[nodiscard]] int64_t index() const { return 2 * layer + (kind == SublayerKind::kMlp ? 1 : 0); }
};

// The progress of training. steps = 0: not training (a model that was loaded).
struct Progress {
  int64_t step = 0;  // finished updates
  int64_t steps = 0;
};

// The purpose of one pass over a batch.
struct Pass {
  bool training = false;
  uint64_t seed = 0;  // of the run: layerdrop's draws
  Progress progress;
};

struct SourceLabel {
  std::string name;  // "e", "S1", "P1", "Q1", "u3"
  std::string type;  // "embedding", "summary", "phase", "split"
  int64_t block = 0;
};

// The order in which a pass runs its layers.
enum class LayerOrder {
  kPlain,    // every layer once, from the first to the last
  kForward,  // some are left out or run again, none runs after a later one
  kAny,
};

// Receives source weights, gates and halting depths, for inspection. `site` is empty for the
// read-out.
class Taps {
 public:
  virtual ~Taps() = default;
  // weights [sources, B, T]
  virtual void on_weights(const std::optional<Site>& site, std::span<const SourceLabel> sources,
                          const at::Tensor& weights) = 0;
  // alpha [B, T, 1] or [B, T, d]
  virtual void on_gate(const Site& site, const at::Tensor& alpha) = 0;
  // depth [B, T]: the layer at which each token halted, from 1
  virtual void on_depth(const at::Tensor& depth) = 0;
};

// What a scheme keeps between the tokens of a sequence besides keys and values.
class DecodeState {
 public:
  virtual ~DecodeState() = default;
  // True: the passes of later tokens do the same work, in the same memory.
  [[nodiscard]] virtual bool is_steady() const { return false; }
};

// How a stream is opened.
struct StreamOptions {
  ops::Backend* backend = nullptr;  // what it runs on; never null in open()
  Pass pass;
  bool record = false;            // keep what the backward twins need
  DecodeState* decode = nullptr;  // of the same Residual; null: the sequence starts here
  LayerOrder order = LayerOrder::kPlain;
  Taps* taps = nullptr;
  // Keeps the coefficients of this pass, or gives those of another (residual/coefficients.h).
  Coefficients* coefficients = nullptr;
};

// The norm between a read and its sublayer: x = gain * h / sqrt(mean h^2 + eps).
struct PreNorm {
  Parameter* gain = nullptr;  // [d]; null: no norm, x = h
  double eps = 0.0;
  at::ScalarType type = at::kFloat;  // of x: the compute type
};

// The state from which a stream can be restarted in the middle (recomputation).
using StreamSnapshot = std::vector<at::Tensor>;

// The residual stream of one batch. Forward calls come in the order begin, (read, write) for each
// executed sublayer, read_out; backward calls in the exact reverse order. Tensors that enter and
// leave carry no autograd history: every operation has its explicit backward twin, which adds to
// the parameters' gradients itself.
class Stream {
 public:
  explicit Stream(const StreamOptions& options);
  virtual ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // e [B,T,d] in the storage type.
  virtual void begin(const at::Tensor& embedding) = 0;
  // True: begin() may follow a read-out, in place of opening a stream with these options; no
  // parameter may have changed since this one was opened.
  [[nodiscard]] virtual bool can_begin_again(const StreamOptions& /*options*/) const {
    return false;
  }
  // h_l [B,T,d] in the storage type.
  [[nodiscard]] virtual at::Tensor read(const Site& site) = 0;
  // u_l [B,T,d] in the compute type. It must not change until its backward: a stream may keep it.
  virtual void write(const Site& site, const at::Tensor& update) = 0;
  // What the final norm sees, [B,T,d].
  [[nodiscard]] virtual at::Tensor read_out() = 0;

  // A read and the norm after it, which a scheme may take in one pass: x [B,T,d] in the norm's
  // type.
  [[nodiscard]] virtual at::Tensor read_normed(const Site& site, const PreNorm& norm);
  [[nodiscard]] virtual at::Tensor read_out_normed(const PreNorm& norm);

  // Inference: indices into the B*T tokens of those that are still running, int64 [n]; undefined =
  // all. A sublayer may leave the update of other tokens at zero.
  [[nodiscard]] virtual at::Tensor running_rows() const { return {}; }
  // After read_out: the scheme's own loss term, a mean over all tokens (scalar; undefined = none),
  // and the mean number of layers that a token went through (undefined = all).
  [[nodiscard]] virtual at::Tensor auxiliary_loss() const { return {}; }
  [[nodiscard]] virtual at::Tensor mean_depth() const { return {}; }

  // grad [B,T,d] of the read-out; auxiliary_grad: d(total loss) / d(auxiliary_loss()).
  virtual void read_out_backward(const at::Tensor& grad, double auxiliary_grad) = 0;
  // Gradient of u_l, in its type.
  [[nodiscard]] virtual at::Tensor write_backward(const Site& site) = 0;
  // grad [B,T,d] of h_l.
  virtual void read_backward(const Site& site, const at::Tensor& grad) = 0;
  // Gradient of e.
  [[nodiscard]] virtual at::Tensor begin_backward() = 0;
  // The twins of read_normed and read_out_normed: grad [B,T,d] of x, in its type. They add to the
  // gain's gradient.
  virtual void read_normed_backward(const Site& site, const PreNorm& norm, const at::Tensor& grad);
  virtual void read_out_normed_backward(const PreNorm& norm, const at::Tensor& grad,
                                        double auxiliary_grad);

  // Recomputation: a forward without records between two snapshots can be run again from the
  // first one, with records, before its backward.
  void set_record(bool record) { record_ = record; }
  [[nodiscard]] virtual StreamSnapshot snapshot() = 0;
  virtual void restore(const StreamSnapshot& snapshot) = 0;

 protected:
  [[nodiscard]] ops::Backend& backend() const { return *options_.backend; }

  StreamOptions options_;
  bool record_ = false;

 private:
  struct Norms;  // what the backwards of the recorded reads' norms need
  [[nodiscard]] at::Tensor normed(const at::Tensor& h, const PreNorm& norm);
  [[nodiscard]] at::Tensor normed_backward(const PreNorm& norm, const at::Tensor& grad);

  std::unique_ptr<Norms> norms_;
};

// How the weights of a plain model (prenorm) are to be changed so that they keep their function
// under a scheme whose own parameters Residual::start_from_plain has set.
struct PlainStart {
  // Multiplies everything that is written to the stream: the embedding, which a tied head then no
  // longer is, and the output projections. An average of k sources is the stream over k, and the
  // norms' eps then weighs k^2 as much; with a stream that is as much larger it doesn't.
  double stream_scale = 1.0;
  double update_scale = 1.0;  // multiplies the output projections alone
  Options options = {};       // of the scheme that must be so, for training too
};

// A residual scheme with its options and parameters, bound to one model.
class Residual {
 public:
  virtual ~Residual() = default;

  // Declares the scheme's parameters under their checkpoint names.
  virtual void declare(ParameterTable& table) = 0;
  [[nodiscard]] virtual std::unique_ptr<Stream> open(const StreamOptions& options) const = 0;

  // False: the sublayers have no norm of their own.
  [[nodiscard]] virtual bool has_sublayer_norms() const { return true; }
  // The stored layer that logical layer `layer` uses (the same one for all where layers are
  // shared).
  [[nodiscard]] virtual int64_t stored_layer(int64_t layer) const { return layer; }
  // False: this pass leaves out the layer (its two sublayers together).
  [[nodiscard]] virtual bool runs_layer(int64_t layer, const Pass& pass) const;
  // Sublayers per block: the unit of recompute = "block".
  [[nodiscard]] virtual int64_t block_length() const = 0;
  // Throws UserError if the scheme is only defined for the layers 0..L-1 in order.
  virtual void check_program() const {}
  // Null: nothing is kept.
  [[nodiscard]] virtual std::unique_ptr<DecodeState> decode_state() const { return nullptr; }
  // Matrix-product FLOPs that the scheme adds per token, forward.
  [[nodiscard]] virtual double flops_per_token() const { return 0.0; }
  // For the memory plan, tensors of [tokens, d] in the storage type: what a training pass keeps of
  // all sublayers together besides what they read (of fewer, where some are recomputed); what a
  // pass holds whatever is recomputed; what a snapshot is made of.
  [[nodiscard]] virtual double kept_states() const { return 0.0; }
  [[nodiscard]] virtual double standing_states(bool /*training*/) const { return 0.0; }
  [[nodiscard]] virtual double snapshot_states() const { return 1.0; }
  // Of the same tensors, what sublayer `sublayer` (from 0) and all after it need of those before:
  // what a pipeline's stage that begins there is sent.
  [[nodiscard]] virtual double carried_states(int64_t /*sublayer*/) const {
    return snapshot_states();
  }
  // Earlier positions of what a sublayer reads that the scheme looks at besides the token's own:
  // what a device with a part of the sequence is sent by the one before it, for every sublayer.
  [[nodiscard]] virtual int64_t earlier_positions() const { return 0; }
  // True: a model computes exactly what LlamaForCausalLM computes.
  [[nodiscard]] virtual bool is_llama() const { return false; }
  // Sets the scheme's parameters, which have their initial values, so that the model computes what
  // prenorm computes with the same other weights, as far as the scheme can and with a gradient for
  // every parameter.
  [[nodiscard]] virtual PlainStart start_from_plain() { return {}; }
  // Every option as a checkpoint spells it, without the scheme's name.
  [[nodiscard]] virtual Options options(const Progress& progress) const = 0;
};

// The description of a scheme; the registry has one for each.
struct SchemeInfo {
  std::string name;
  std::string summary;  // one line, with its source
  std::vector<OptionSpec> options;
  // Makes the scheme from options that were checked against `options`; throws UserError where they
  // contradict each other or the model. `rms_norm_eps` also serves as the key norm's.
  std::unique_ptr<Residual> (*create)(const Options& given, const ModelSize& size,
                                      double rms_norm_eps);
};

[[nodiscard]] std::span<const SchemeInfo> residual_schemes();
// Throws UserError with the nearest name.
[[nodiscard]] const SchemeInfo& find_scheme(const std::string& name);
// The same in the form that the configuration needs.
[[nodiscard]] const SchemeCatalog& scheme_catalog();

}  // namespace wavroute
