// What a pass runs on: memory and operators. Decoder, sublayers, streams and the optimizer hold one
// and ask nothing about devices.
//
//   cpu        our kernels, on the CPU, in fp32 and bf16 (ops/cpu_backend.cpp)
//   cuda       our kernels, on an NVIDIA GPU, in fp32 and bf16 (ops/cuda)
//   composed   stock operators throughout, on any device and in any type: the oracle of the others,
//              with which it shares no kernel (ops/composed_backend.cpp)
//
// A back end of a device of its own implements this class; what it lacks of PassNeeds runs composed
// (Decoder::backend_for).
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "ops/attention.h"
#include "ops/decode.h"
#include "ops/device_steps.h"
#include "ops/memory.h"
#include "ops/norm.h"
#include "ops/q8.h"
#include "ops/route.h"

namespace wavroute::ops {

enum class BackendKind { kComposed, kCpu, kCuda };

// What a pass may need besides a forward and backward of every layer once, in order.
struct PassNeeds {
  bool program = false;  // layers left out, repeated or in another order
  bool taps = false;     // weights, gates and depths for inspection
  bool decoding = false;
};

// One AdamW update (arXiv 1711.05101) of flat buffers of one size.
struct AdamwBuffers {
  at::Tensor value, grad, first, second;
  at::Tensor copy;  // of the values in the compute type; undefined: none
};
struct AdamwNumbers {
  double lr = 0.0, beta1 = 0.0, beta2 = 0.0, eps = 0.0, weight_decay = 0.0;
  int64_t update = 1;  // from 1, for the bias correction
  double grad_scale = 1.0;
};

// Routed reads and writes on parts of the running block (ops/route.h).
class RouteOperators {
 public:
  RouteOperators() = default;
  virtual ~RouteOperators() = default;
  RouteOperators(const RouteOperators&) = delete;
  RouteOperators& operator=(const RouteOperators&) = delete;

  [[nodiscard]] virtual RouterRows gather_routers(std::span<const RouterParameters> routers,
                                                  std::span<const int64_t> sums, int64_t running,
                                                  int64_t d) = 0;
  virtual void add_router_grads(std::span<const RouterParameters> routers,
                                std::span<const int64_t> sums, const at::Tensor& query_grad,
                                const at::Tensor& bias_grad) = 0;
  virtual void source_scalars(const at::Tensor& row, const at::Tensor& summary, const RouteEps& eps,
                              const at::Tensor& ratio, const at::Tensor& inverse) = 0;
  virtual void read(const RunningRead& read, const PhaseOne* mix, const BlockEnd* end) = 0;
  virtual void read_backward(const RunningReadBackward& read) = 0;
  virtual void mix_backward(const PhaseOneBackward& mix) = 0;
  virtual void add_signed(std::span<const SignedGrad> grads, const at::Tensor& du) = 0;
};

class Backend {
 public:
  Backend() = default;
  virtual ~Backend() = default;
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;

  [[nodiscard]] virtual BackendKind kind() const = 0;
  [[nodiscard]] virtual bool serves(const PassNeeds& needs) const = 0;
  // Null: routed schemes run on a bank of rows (residual/bank_stream.h).
  [[nodiscard]] virtual RouteOperators* routes() = 0;
  // Null: a step's numbers are the host's.
  [[nodiscard]] virtual DeviceSteps* steps() { return nullptr; }

  // Where tensors of a pass are made; a pass begins.
  [[nodiscard]] virtual Memory& memory() = 0;
  virtual void begin_pass() = 0;
  // These numbers as int64 on the device, for choosing rows. They stay there, because work that is
  // recorded can't copy from the host: lists that it asks for must be known. From any thread.
  [[nodiscard]] at::Tensor numbers(const std::vector<int64_t>& list);

  // x w^T: x [tokens, n], w [m, n] -> [tokens, m]
  [[nodiscard]] virtual at::Tensor project(const at::Tensor& x, const at::Tensor& w) = 0;
  // The same in the storage type, where x and w are bf16 too: rounded to bf16, the best logits of a
  // token are often equal. (Rounded all the same where the products of many tokens are.)
  [[nodiscard]] virtual at::Tensor project_logits(const at::Tensor& x, const at::Tensor& w) = 0;
  // du w: the gradient of x. du [tokens, m] -> [tokens, n]
  [[nodiscard]] virtual at::Tensor project_backward(const at::Tensor& du, const at::Tensor& w) = 0;
  // grad += du^T x: the gradient of w, in the storage type.
  virtual void add_weight_grad(const at::Tensor& du, const at::Tensor& x, at::Tensor grad) = 0;
  // rows [tokens, m] += bias [m], in place; bias in the storage type.
  virtual void add_bias(at::Tensor rows, const at::Tensor& bias) = 0;
  // grad [m] += the sum of the rows of du [tokens, m]: the gradient of a bias, in the storage type.
  virtual void add_bias_grad(const at::Tensor& du, at::Tensor grad) = 0;

  // [N,m,k] [N,k,n]: small products of each token.
  [[nodiscard]] virtual at::Tensor batched_product(const at::Tensor& a, const at::Tensor& b) = 0;

  // The write of the additive stream and the norm after it: see ops/norm.h.
  [[nodiscard]] virtual Normed add_norm(const at::Tensor& h, const Addend& addend, const Norm& norm,
                                        at::ScalarType type) = 0;
  [[nodiscard]] virtual at::Tensor add(const at::Tensor& h, const Addend& addend) = 0;
  [[nodiscard]] virtual at::Tensor add_norm_backward(const at::Tensor& dx, const Normed& forward,
                                                     const Norm& norm, const Addend& addend,
                                                     at::Tensor dh, bool first) = 0;

  // Causal attention from position 0: see ops/attention.h. May rotate the queries and keys in
  // place; the backward takes what is left.
  [[nodiscard]] virtual Attended attention(const at::Tensor& qkv,
                                           const kernels::AttentionShape& shape,
                                           const RopeTable& rope) = 0;
  [[nodiscard]] virtual at::Tensor attention_backward(const at::Tensor& qkv,
                                                      const Attended& forward, const at::Tensor& dy,
                                                      const kernels::AttentionShape& shape,
                                                      const RopeTable& rope) = 0;

  // Attention of new tokens over the keys and values of earlier ones: see ops/decode.h. May rotate
  // in place as well.
  [[nodiscard]] virtual at::Tensor cached_attention(const at::Tensor& qkv,
                                                    const kernels::AttentionShape& shape,
                                                    const RopeTable& rope,
                                                    const KeyValues& cache) = 0;
  // The same with a matrix in blocks of q8_0.
  [[nodiscard]] virtual at::Tensor project(const at::Tensor& x, const Q8Matrix& w) = 0;
  [[nodiscard]] virtual at::Tensor project_logits(const at::Tensor& x, const Q8Matrix& w) = 0;

  // a = silu(gate) * up: gate_up [tokens, 2 hidden] -> [tokens, hidden]
  [[nodiscard]] virtual at::Tensor swiglu(const at::Tensor& gate_up) = 0;
  // In place: gate_up becomes its gradient, da becomes a.
  virtual void swiglu_backward(at::Tensor gate_up, at::Tensor da) = 0;

  // Rows of table [V, d] at ids, any shape. UserError for an id that is no row of it; on another
  // device than the CPU that is libtorch's error.
  [[nodiscard]] virtual at::Tensor embed(const at::Tensor& table, const at::Tensor& ids) = 0;
  // table_grad [V, d] += rows [..., d] at ids.
  virtual void add_rows(const at::Tensor& ids, const at::Tensor& rows, at::Tensor table_grad) = 0;
  // The loss summed over the scored tokens, in nats: see ops/cross_entropy.h.
  [[nodiscard]] virtual double cross_entropy(at::Tensor logits, const at::Tensor& targets,
                                             double weight) = 0;

  [[nodiscard]] virtual double sum_of_squares(const at::Tensor& values) = 0;
  // Leaves the gradients at zero.
  virtual void adamw(const AdamwBuffers& buffers, const AdamwNumbers& numbers) = 0;

 private:
  std::mutex mutex_;
  std::map<std::vector<int64_t>, at::Tensor> numbers_;
};

// "composed", "cuda", or "cpu" with the instruction set of its kernels: "cpu (avx2)".
[[nodiscard]] std::string describe(BackendKind kind);
[[nodiscard]] std::unique_ptr<Backend> make_cpu_backend();
[[nodiscard]] std::unique_ptr<Backend> make_composed_backend(at::Device device);
// Null where this build has none, or not for this device (why_no_cuda_backend).
[[nodiscard]] std::unique_ptr<Backend> make_cuda_backend(at::Device device);
// In words; empty where make_cuda_backend makes one for a GPU.
[[nodiscard]] std::string why_no_cuda_backend();

}  // namespace wavroute::ops
