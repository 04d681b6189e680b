// The routed read and write of a block (method.md sections 3 to 5), forward and backward.
//
// Legend: t token, d width, j a finished source (its raw sum V_j is a row of the bank), i a router
// of the block, q_i = w_i * g_i. A source is v_j = ratio_j V_j: ratio is 1 for a summary, the
// matching ratio rho for a detail, held constant by the gradient.
//   inverse_j[t] = 1 / rms(v_j),  k_j = ratio_j inverse_j,  logit_ij = k_j (q_i . V_j) + bias_ij
// Kernels work on tokens [begin, end); see stream.h for partial sums. Per-token numbers of several
// sources or routers are stored as [source or router][tokens]: pointers below are to token 0.
// A pitch may be larger than a row: rows at a distance of whole pages compete for the same few
// lines of a cache.
// R: storage of finished rows.  M: storage of what a block's readers and the finished sources pass
// each other, mixed and dh.  C: compute type, also of mixed and dh.  Each float or Bf16; all
// arithmetic is in float.
#pragma once

#include <cstdint>

#include "kernels/grid.h"
#include "kernels/types.h"

namespace wavroute::kernels {

inline constexpr int kMostRunning = 3;  // S and two details

// Scalars of a finished block's sums, for every later reader.
// ratio = sqrt((mean S^2 + matching_eps) / (mean V^2 + matching_eps)), 1 where summary == row;
// inverse = 1 / sqrt(ratio^2 mean V^2 + norm_eps)
template <typename R>
struct SourceScalars {
  int64_t d = 0;
  Grid<const R> row;      // [tokens, d]
  Grid<const R> summary;  // [tokens, d], S of the same block
  float norm_eps = 0.0F, matching_eps = 0.0F;
  float* ratio = nullptr;    // [tokens]
  float* inverse = nullptr;  // [tokens]
};

// Phase 1, for `routers` routers over `sources` >= 1 finished rows:
//   peak_i = max_j logit_ij,  mass_i = sum_j exp(logit_ij - peak_i),
//   mixed_i = sum_j exp(logit_ij - peak_i) v_j, rounded to M after every 32 sources
template <typename R, typename M>
struct MixFinished {
  int64_t d = 0, sources = 0, routers = 0;
  const Grid<const R>* rows = nullptr;    // [sources] -> [tokens, d]
  const float* const* ratio = nullptr;    // [sources] -> [tokens]
  const float* const* inverse = nullptr;  // [sources] -> [tokens]
  Grid<const float> query;                // [routers, d], q
  Grid<const float> bias;                 // [routers, sources]
  Grids<float> logits;                    // [routers, sources, tokens]; null: not kept
  Grid<float> peak;                       // [routers, tokens]
  Grid<float> mass;                       // [routers, tokens]
  Grids<M> mixed;                         // [routers, tokens, d]
};

// The running block. Updates that have the same sign in every detail are summed in one part; the
// sums that a reader sees, its forms, are made of the parts in registers:
//   1 part   {a}           form 0 = a
//   2 parts  {a, b}        form 0 = a + b                 form 1 = a - b
//   4 parts  {a, b, c, d}  form 0 = (a + b) + (c + d)     form 1 = (a - b) + (c - d)
//                          form 2 = (a + b) - (c + d)
// Form 0 is S. An update is added to one part, so that a write changes one row, and if parts are
// kept as each read saw them, the backward need not undo any write.
inline constexpr int kMostParts = 4;
inline constexpr int kMostForms = 3;
struct Parts {
  int count = 0;                            // 0: nothing is running yet, 1, 2 or 4
  Grid<const float> rows[kMostParts] = {};  // [tokens, d]; null: nothing was added to it
};
// The number of forms that `parts` parts have.
constexpr int form_count(int parts) { return parts == 4 ? 3 : parts; }

// A running sum as a source: form `form`, matched to form 0 unless it is form 0.
struct RunningSource {
  int form = 0;
  float bias = 0.0F;         // of the reader, 0 for S
  float* dot = nullptr;      // [tokens] q . V, kept for the backward; null: not kept
  float* ratio = nullptr;    // [tokens]
  float* inverse = nullptr;  // [tokens]
};

// The update that a write adds to part `part`: out = in + u.
template <typename C>
struct PartWrite {
  Grid<const C> u;  // [tokens, d]; null: nothing is written
  int part = 0;
  Grid<const float> in;  // [tokens, d] the part before; null: this is its first update
  Grid<float> out;       // [tokens, d], may be `in`
};

// The write of one update, phase 2 of the reader after it, and its PreNorm:
//   h = merge(mixed, the running sources);  x = gain h / rms(h)
template <typename C>
struct WriteRead {
  int64_t d = 0;
  PartWrite<C> write;
  Parts parts;      // parts.rows[write.part] is ignored if there is a write
  int running = 0;  // sources, at most kMostRunning; source 0 is S
  RunningSource sources[kMostRunning];
  const float* query = nullptr;  // [d]
  const float* peak = nullptr;   // [tokens] of phase 1
  const float* mass = nullptr;   // [tokens]
  Grid<const C> mixed;           // [tokens, d]
  float norm_eps = 0.0F;         // of the key norm and of the PreNorm
  float matching_eps = 0.0F;
  float* lse = nullptr;          // [tokens] logsumexp over all sources; null: not kept
  const float* gain = nullptr;   // [d]; null: no norm, x = h
  Grid<C> h;                     // [tokens, d]; null: not kept
  Grid<C> x;                     // [tokens, d]; null: not wanted
  float* inverse_rms = nullptr;  // [tokens] of h; null: not kept
};

// The last write of a block: its sums become finished sources. rows[s] = form form[s].
template <typename C>
struct FinishBlock {
  int64_t d = 0;
  PartWrite<C> write;
  Parts parts;
  int sums = 0;
  int form[kMostRunning] = {};
  Grid<float> rows[kMostRunning] = {};  // [tokens, d]
  float norm_eps = 0.0F, matching_eps = 0.0F;
  float* ratio[kMostRunning] = {};    // [tokens], as SourceScalars'
  float* inverse[kMostRunning] = {};  // [tokens]
};

// What the forward kept of a running source, for the backward.
struct RunningSourceGrad {
  int form = 0;
  float bias = 0.0F;
  const float* dot = nullptr;  // [tokens]
  const float* ratio = nullptr;
  const float* inverse = nullptr;
  float* bias_grad = nullptr;  // [1] += sum of dlogit over the rows; null: not wanted
};

// The gradient of a form, which collects all readers of the block that come after an update.
struct FormGrad {
  Grid<float> grad;          // [tokens, d], +=
  Grid<const float> joined;  // [tokens, d], added to it first: a form that is this one from here
                             // on; null: none
  float sign = 1.0F;         // of the update before the read, in this form
};

// The backward of WriteRead's reader: of the PreNorm and of phase 2, and the gradient of the update
// that was written before the read, du = sum of sign * grad.
template <typename C>
struct ReadBackward {
  int64_t d = 0;
  Grid<const C> dx;                    // [tokens, d]
  Grid<const C> h;                     // [tokens, d]
  const float* inverse_rms = nullptr;  // [tokens]
  const float* gain = nullptr;         // [d]; null: no norm
  float* gain_grad = nullptr;          // [d], partial sums, +=; null: not wanted
  Parts parts;                         // as the reader saw them
  int running = 0;
  RunningSourceGrad sources[kMostRunning];
  FormGrad forms[kMostForms];    // [form_count(parts.count)]
  const float* query = nullptr;  // [d]
  const float* lse = nullptr;    // [tokens]
  float* query_grad = nullptr;   // [d], partial sums of dlogit k V, +=
  Grid<C> dh;                    // [tokens, d], = gradient of h, for MixFinishedBackward
  float* along = nullptr;        // [tokens], = dh . h, of the dh that is not rounded to C yet
  Grid<C> du;                    // [tokens, d]; null: not wanted
};

// The gradient of an update that no reader of its block follows: du = sum_s sign_s grad_s.
template <typename C>
struct UpdateGrad {
  int64_t d = 0;
  int sums = 0;                                // at least 1
  Grid<const float> grads[kMostRunning] = {};  // [tokens, d]
  float sign[kMostRunning] = {};
  Grid<C> du;  // [tokens, d]
};

// Phase 1 backwards, for all routers of a block at once: every source is read once and every
// gradient written once. With a_ij = exp(logit_ij - lse_i), dlogit_ij = a_ij (dh_i . v_j -
// along_i):
//   dV_j = (first ? 0 : dV_j) + sum_i (a_ij ratio_j dh_i + dlogit_ij k_j q_i)
//          - V_j k_j^2 / d sum_i dlogit_ij (logit_ij - bias_ij)
//   query_grad_i += sum_j dlogit_ij k_j V_j,  bias_grad_ij += dlogit_ij, summed over the tokens
template <typename R, typename M>
struct MixFinishedBackward {
  int64_t d = 0, sources = 0, routers = 0;
  const Grid<const R>* rows = nullptr;
  const float* const* ratio = nullptr;
  const float* const* inverse = nullptr;
  Grid<const float> query;             // [routers, d]
  Grid<const float> bias;              // [routers, sources]
  Grids<const float> logits;           // [routers, sources, tokens]
  Grid<const float> lse;               // [routers, tokens]
  Grid<const float> along;             // [routers, tokens]
  Grids<const M> dh;                   // [routers, tokens, d]
  const Grid<float>* grads = nullptr;  // [sources] -> [tokens, d]
  const bool* first = nullptr;         // [sources]: grads holds nothing yet
  Grid<float> query_grad;              // [routers, d], partial sums
  Grid<float> bias_grad;               // [routers, sources], partial sums
};

template <typename R, typename M>
struct MixKernels {
  void (*forward)(const MixFinished<R, M>&, int64_t begin, int64_t end);
  void (*backward)(const MixFinishedBackward<R, M>&, int64_t begin, int64_t end);
};
template <typename R>
struct FinishedKernels {
  void (*source_scalars)(const SourceScalars<R>&, int64_t begin, int64_t end);
  template <typename M>
  using Mix = MixKernels<R, M>;
  ByType<Mix> mix;  // by M
};

template <typename C>
struct RunningKernels {
  void (*write_read)(const WriteRead<C>&, int64_t begin, int64_t end);
  void (*finish_block)(const FinishBlock<C>&, int64_t begin, int64_t end);
  void (*read_backward)(const ReadBackward<C>&, int64_t begin, int64_t end);
  void (*update_grad)(const UpdateGrad<C>&, int64_t begin, int64_t end);
};

}  // namespace wavroute::kernels
