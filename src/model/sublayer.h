// The two halves of a layer: u = f(x), x = RMSNorm(h), and their backwards, on a back end.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "ops/backend.h"
#include "ops/rope.h"
#include "wavroute/config.h"
#include "wavroute/decoder.h"
#include "wavroute/parameters.h"

namespace wavroute {

// What a sublayer needs besides its input.
struct SublayerContext {
  InferenceState* state = nullptr;  // null: no cache, positions from 0
  int64_t visit = 0;                // which cache
  at::Tensor running_rows;          // int64 [n] into the B*T tokens; undefined: all
};

class Sublayer {
 public:
  virtual ~Sublayer() = default;

  // The norm that gives x.
  [[nodiscard]] const PreNorm& norm() const { return norm_; }
  [[nodiscard]] const std::vector<Parameter*>& weights() const { return weights_; }

  // u [B,T,d] = f(x), x [B,T,d] in the compute type; u is zero for tokens that don't run. `kept`
  // receives what the backward needs, of a pass without a cache in which all tokens run; null:
  // nothing is kept.
  using Kept = std::vector<at::Tensor>;
  [[nodiscard]] virtual at::Tensor run(const at::Tensor& x, ops::Backend& backend, Kept* kept,
                                       const SublayerContext& context) const = 0;
  // du [B,T,d] -> dx [B,T,d]; adds to the gradients of the weights. Uses `kept` up.
  [[nodiscard]] virtual at::Tensor run_backward(const at::Tensor& du, ops::Backend& backend,
                                                Kept kept) const = 0;

 protected:
  Sublayer(const PreNorm& norm, std::vector<Parameter*> weights)
      : norm_(norm), weights_(std::move(weights)) {}

 private:
  PreNorm norm_;
  std::vector<Parameter*> weights_;
};

// x w^T + bias on a back end, x [tokens, n] -> [tokens, m]; by the blocks of q8_0 where the matrix
// has them.
[[nodiscard]] at::Tensor product(ops::Backend& backend, const at::Tensor& x, const Parameter& w,
                                 const Parameter* bias = nullptr);

// One sublayer of a pass: read, f, write. `state`: keys and values of earlier calls, or null;
// `kept` as Sublayer::run's, null in a pass without a backward.
void take_sublayer(Stream& stream, const Site& site, const Sublayer& f, ops::Backend& backend,
                   InferenceState* state, Sublayer::Kept* kept);
// Its backward: of the write, f, and the read.
void take_sublayer_backward(Stream& stream, const Site& site, const Sublayer& f,
                            ops::Backend& backend, Sublayer::Kept kept);

// Causal multi-head attention with RoPE and grouped key-value heads.
class Attention final : public Sublayer {
 public:
  // qkv [(heads + 2 kv_heads) * head width, d], out [d, heads * head width], and their biases
  // [rows], null where there are none.
  struct Weights {
    Parameter *qkv, *out, *qkv_bias, *out_bias;
  };
  // rope: the rotations of positions, where x is.
  Attention(const ModelConfig& model, const PreNorm& norm, const Weights& weights,
            std::shared_ptr<ops::RopeRows> rope);

  [[nodiscard]] at::Tensor run(const at::Tensor& x, ops::Backend& backend, Kept* kept,
                               const SublayerContext& context) const override;
  [[nodiscard]] at::Tensor run_backward(const at::Tensor& du, ops::Backend& backend,
                                        Kept kept) const override;

 private:
  [[nodiscard]] kernels::AttentionShape shape_of(const at::Tensor& x) const;
  [[nodiscard]] ops::Attended attend(const at::Tensor& qkv, const kernels::AttentionShape& shape,
                                     ops::Backend& backend, InferenceState* state,
                                     int64_t visit) const;

  Weights w_;
  int64_t heads_, kv_heads_, head_width_;
  std::shared_ptr<ops::RopeRows> rope_;
};

// down( silu(gate(x)) * up(x) )
class Mlp final : public Sublayer {
 public:
  // gate_up [2 hidden, d], down [d, hidden]
  Mlp(const PreNorm& norm, Parameter* gate_up, Parameter* down);

  [[nodiscard]] at::Tensor run(const at::Tensor& x, ops::Backend& backend, Kept* kept,
                               const SublayerContext& context) const override;
  [[nodiscard]] at::Tensor run_backward(const at::Tensor& du, ops::Backend& backend,
                                        Kept kept) const override;

 private:
  Parameter* gate_up_;
  Parameter* down_;
};

}  // namespace wavroute
