// The two halves of a layer: u = f(RMSNorm(h)).
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

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

  // h [B,T,d] storage type -> u [B,T,d] compute type; zero for tokens that don't run.
  // Differentiable where running_rows is undefined and there is no cache.
  [[nodiscard]] virtual at::Tensor forward(const at::Tensor& h,
                                           const SublayerContext& context) const = 0;
  [[nodiscard]] const std::vector<Parameter*>& parameters() const { return parameters_; }

 protected:
  // `gain` may be null: no norm.
  Sublayer(Parameter* gain, double eps, at::ScalarType compute);

  [[nodiscard]] at::Tensor normalised(const at::Tensor& h) const;

  std::vector<Parameter*> parameters_;

 private:
  Parameter* gain_;
  double eps_;
  at::ScalarType compute_;
};

// Causal multi-head attention with RoPE and grouped key-value heads.
class Attention final : public Sublayer {
 public:
  // qkv [(heads + 2 kv_heads) * head width, d], out [d, heads * head width]
  Attention(const ModelConfig& model, Parameter* gain, Parameter* qkv, Parameter* out,
            at::ScalarType compute);

  [[nodiscard]] at::Tensor forward(const at::Tensor& h,
                                   const SublayerContext& context) const override;

 private:
  [[nodiscard]] at::Tensor project(const at::Tensor& x, const at::Tensor& rows) const;
  [[nodiscard]] at::Tensor attend(const at::Tensor& q, at::Tensor k, at::Tensor v,
                                  const SublayerContext& context) const;

  Parameter* qkv_;
  Parameter* out_;
  int64_t heads_, kv_heads_, head_width_;
  double theta_;
};

// down( silu(gate(x)) * up(x) )
class Mlp final : public Sublayer {
 public:
  // gate_up [2 hidden, d], down [d, hidden]
  Mlp(const ModelConfig& model, Parameter* gain, Parameter* gate_up, Parameter* down,
      at::ScalarType compute);

  [[nodiscard]] at::Tensor forward(const at::Tensor& h,
                                   const SublayerContext& context) const override;

 private:
  Parameter* gate_up_;
  Parameter* down_;
};

// Rotates heads x [B,T,n,width] at positions first .. first+T-1: the half-split rotation of the
// Llama family, angle = position * theta^(-2i/width). In fp32 (fp64 for fp64); returns x's type.
[[nodiscard]] at::Tensor rotate(const at::Tensor& x, int64_t first, double theta);

}  // namespace wavroute
