// The routed read and write of a block over tensors: the one place that fills the arguments of the
// routing kernels (kernels/route.h has the formulas). On the CPU. The last dimension of a tensor is
// contiguous; what lies along the others may lie apart (Memory::empty_apart).
//
// Legend: n finished sources, R routers, s running sources of a reader (S and its details).
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <functional>
#include <span>
#include <vector>

#include "kernels/route.h"
#include "ops/memory.h"

namespace wavroute::ops {

using kernels::form_count, kernels::kMostParts, kernels::kMostRunning;

// Inside roots: of the key norm and of the PreNorm, and of both sides of the detail's matching.
struct RouteEps {
  double norm = 0.0;
  double matching = 0.0;
};

// ---- parameters of routers ----------------------------------------------------------------------

// One router's parameters with their gradients; a router without a query reads nothing.
struct RouterParameters {
  at::Tensor query, query_grad;  // w [1, d]
  at::Tensor gain, gain_grad;    // g [d]
  at::Tensor bias, bias_grad;    // beta [details]; undefined without details
};

// What routers read with.
struct RouterRows {
  at::Tensor query;         // [R, d], w * g
  at::Tensor bias;          // [R, n] of finished sources, 0 for a summary
  at::Tensor running_bias;  // [R, s] of running sources, 0 for S
};

// sums: for each finished source, which sum of its block it is (0: a summary, k: detail k - 1).
[[nodiscard]] RouterRows gather_routers(Memory& memory, std::span<const RouterParameters> routers,
                                        std::span<const int64_t> sums, int64_t running, int64_t d);
// The way back: adds to the gradients of the parameters from query_grad [R, d], that of w * g, and
// bias_grad [R, sums], that of the biases of sources `sums`.
void add_router_grads(std::span<const RouterParameters> routers, std::span<const int64_t> sums,
                      const at::Tensor& query_grad, const at::Tensor& bias_grad);

// ---- finished sources ---------------------------------------------------------------------------

// V_j = rows[j] [tokens, d], float or bfloat16, with the numbers that every reader needs of them.
struct FinishedSources {
  std::vector<at::Tensor> rows;
  at::Tensor ratio, inverse;  // [n, tokens]
};

// ratio, inverse [tokens] of a row [tokens, d] whose block's summary is `summary`.
void source_scalars(const at::Tensor& row, const at::Tensor& summary, const RouteEps& eps,
                    const at::Tensor& ratio, const at::Tensor& inverse);

// The routers of a block over the sources that it finds finished, and what their reads find.
struct RouterGroup {
  FinishedSources sources;
  RouterRows routers;
  at::Tensor peak, mass;  // [R, tokens]
  at::Tensor mixed;       // [R, tokens, d]; [1, tokens, d]: each takes the place of the one before
  // Kept for the backward, or undefined:
  at::Tensor logits;   // [R n, tokens]
  at::Tensor lse;      // [R, tokens]
  at::Tensor running;  // [R s 3, tokens]: of each running source its dot, ratio and inverse
  // Of the backward:
  at::Tensor dh;     // [R, tokens, d], in the type of `mixed`
  at::Tensor along;  // [R, tokens]

  [[nodiscard]] int64_t tokens() const { return sources.rows[0].size(0); }
  [[nodiscard]] int64_t width() const { return sources.rows[0].size(1); }
};

// Phase 1 of the routers [first, first + count).
struct PhaseOne {
  const RouterGroup* group = nullptr;
  int64_t first = 0, count = 0;
};
void mix(const PhaseOne& mix);

// Its backward. Gradients of the sources are added to, or set where `sets`; those of queries and
// biases are added to.
struct PhaseOneBackward {
  const RouterGroup* group = nullptr;
  int64_t first = 0, count = 0;
  std::span<const at::Tensor> source_grads;  // n of [tokens, d] float
  bool sets = false;
  at::Tensor query_grad;  // [count, d]
  at::Tensor bias_grad;   // [count, n]
};
void mix_backward(Memory& memory, const PhaseOneBackward& mix);

// ---- the running block --------------------------------------------------------------------------

// Sums of updates whose signs agree in every detail; undefined: nothing was added yet.
struct RunningParts {
  int count = 0;                           // 0, 1, 2 or 4
  std::array<at::Tensor, kMostParts> row;  // [tokens, d] float
};
// Sums of parts that readers see, at most kMostRunning; form 0 is S.
struct RunningForms {
  int count = 0;
  std::array<int, kMostRunning> form = {};
};

// after = before + u
struct PartWrite {
  at::Tensor u;  // [tokens, d] or [B, T, d] in the compute type; undefined: nothing is written
  int part = 0;
  at::Tensor before;  // [tokens, d] float; undefined: this is the part's first update
  at::Tensor after;   // [tokens, d] float
};

// The end of a block: its last write, then its sums are finished sources.
struct BlockEnd {
  PartWrite write;
  RunningParts parts;  // parts.row[write.part] is not looked at where there is a write
  RunningForms sums;
  RouteEps eps;
  std::array<at::Tensor, kMostRunning> row;             // [tokens, d] float
  std::array<at::Tensor, kMostRunning> ratio, inverse;  // [tokens]
  at::ScalarType type = at::kFloat;                     // the compute type
};
void finish_block(const BlockEnd& end);

// A write, phase 2 of the reader after it, and the PreNorm.
struct RunningRead {
  const RouterGroup* group = nullptr;
  int64_t router = 0;  // of the group
  PartWrite write;
  RunningParts parts;  // as in BlockEnd
  RunningForms sources;
  RouteEps eps;
  at::Tensor gain;         // [d]; undefined: no norm, x = h
  at::Tensor h;            // [tokens, d] in the compute type; undefined: not kept
  at::Tensor x;            // the same
  at::Tensor inverse_rms;  // [tokens] of h; undefined: not kept
};
// `end`, then phase 1, then the read, chunk of tokens by chunk, so that what a chunk has written is
// still in the cache; null: there is none.
void read(const RunningRead& read, const PhaseOne* mix = nullptr, const BlockEnd* end = nullptr);

// Where the gradient of a form is collected.
struct FormGrad {
  at::Tensor grad;    // [tokens, d] float, added to
  at::Tensor joined;  // [tokens, d] float, added to `grad` first; undefined: none
  float sign = 1.0F;  // of the update before the read
};
// Called for every chunk of tokens, before and after the kernel.
struct ChunkHooks {
  std::function<void(int64_t begin, int64_t end)> before, after;
};
// The backward of RunningRead; fills dh and along of the group's router.
struct RunningReadBackward {
  const RouterGroup* group = nullptr;
  int64_t router = 0;
  RunningParts parts;  // as the reader saw them
  RunningForms sources;
  std::array<FormGrad, kMostRunning> forms;  // by form
  at::Tensor dx;                             // [tokens, d] in the compute type
  at::Tensor h, inverse_rms, gain;           // of the forward
  at::Tensor du;                             // [tokens, d]; undefined: not wanted
  // Added to; undefined: not wanted.
  at::Tensor gain_grad, query_grad;  // [d]
  at::Tensor bias_grad;              // [s]
};
void read_backward(Memory& memory, const RunningReadBackward& read, const ChunkHooks& hooks = {});

// du = sum of sign * grad, of at least one and at most kMostRunning.
struct SignedGrad {
  at::Tensor grad;  // [tokens, d] float
  float sign = 1.0F;
};
void add_signed(std::span<const SignedGrad> grads, const at::Tensor& du);

// The sign of part `part` in form `form`.
[[nodiscard]] constexpr float sign_of(int64_t form, int64_t part) {
  return form > 0 && (part >> (form - 1) & 1) != 0 ? -1.0F : 1.0F;
}

}  // namespace wavroute::ops
