// The routed read and write of a block (method.md sections 3 to 5), forward and backward.
//
// Legend: t token, d width, j a finished source (its raw sum V_j is a row of the bank), i a router
// of the block, q_i = w_i * g_i. A source is v_j = ratio_j V_j: ratio is 1 for a summary, the
// matching ratio rho for a detail, held constant by the gradient.
//   inverse_j[t] = 1 / rms(v_j),  k_j = ratio_j inverse_j,  logit_ij = k_j (q_i . V_j) + bias_ij
// Kernels work on tokens [begin, end); see stream.h for partial sums. Per-token numbers of several
// sources or routers lie as [source or router][tokens]: pointers below are to token 0.
// R: storage of finished rows, float or Bf16.  C: compute type, float or Bf16.
#pragma once

#include <cstdint>

#include "kernels/types.h"

namespace wavroute::kernels {

inline constexpr int kMostRunning = 3;  // S and two details

// What finishing a block finds out about its sums, for every later reader.
// ratio = sqrt((mean S^2 + matching_eps) / (mean V^2 + matching_eps)), 1 where summary == row;
// inverse = 1 / sqrt(ratio^2 mean V^2 + norm_eps)
template <typename R>
struct SourceScalars {
  int64_t d = 0;
  const R* row = nullptr;      // [tokens, d]
  const R* summary = nullptr;  // [tokens, d], S of the same block
  float norm_eps = 0.0F, matching_eps = 0.0F;
  float* ratio = nullptr;    // [tokens]
  float* inverse = nullptr;  // [tokens]
};

// Phase 1, for `routers` routers over `sources` >= 1 finished rows:
//   peak_i = max_j logit_ij,  mass_i = sum_j exp(logit_ij - peak_i),
//   mixed_i = sum_j exp(logit_ij - peak_i) v_j
template <typename R>
struct MixFinished {
  int64_t d = 0, tokens = 0, sources = 0, routers = 0;
  const R* const* rows = nullptr;         // [sources] -> [tokens, d]
  const float* const* ratio = nullptr;    // [sources] -> [tokens]
  const float* const* inverse = nullptr;  // [sources] -> [tokens]
  const float* query = nullptr;           // [routers, d], q
  const float* bias = nullptr;            // [routers, sources]
  float* logits = nullptr;                // [routers, sources, tokens]; null: not kept
  float* peak = nullptr;                  // [routers, tokens]
  float* mass = nullptr;                  // [routers, tokens]
  float* mixed = nullptr;                 // [routers, tokens, d]
};

// One running sum of the unfinished block. While all its signs so far were +1, a detail is S bit
// for bit: it is not stored (`out` null) and S's weight takes in its own. S itself is always stored
// where an update is written.
struct RunningSum {
  const float* in = nullptr;  // [tokens, d] before the write; null: nothing was added yet
  float* out = nullptr;       // [tokens, d] after it, may be `in`; null: equals running sum 0
  float sign = 1.0F;          // of the update that is written
  bool read = true;           // is a source of the reader
  float bias = 0.0F;          // of the reader, 0 for S
  float* dot = nullptr;       // [tokens] q . V, kept for the backward; null: not kept
  float* ratio = nullptr;     // [tokens]
  float* inverse = nullptr;   // [tokens]
};

// The write of one update, phase 2 of the reader after it, and its PreNorm:
//   out = in + sign u for every sum;  h = merge(mixed, the running sources);  x = gain h / rms(h)
template <typename C>
struct WriteRead {
  int64_t d = 0;
  const C* u = nullptr;  // [tokens, d]; null: nothing is written, sums are read from `in`
  int running = 0;       // sums; sum 0 is S
  RunningSum sums[kMostRunning];
  bool reads = true;             // false: the write alone (the end of a block)
  const float* query = nullptr;  // [d]
  const float* peak = nullptr;   // [tokens] of phase 1
  const float* mass = nullptr;   // [tokens]
  const float* mixed = nullptr;  // [tokens, d]
  float norm_eps = 0.0F;         // of the key norm and of the PreNorm
  float matching_eps = 0.0F;
  float* lse = nullptr;          // [tokens] logsumexp over all sources; null: not kept
  const float* gain = nullptr;   // [d]; null: no norm, x = h
  float* h = nullptr;            // [tokens, d]; null: not kept
  C* x = nullptr;                // [tokens, d]; null: not wanted
  float* inverse_rms = nullptr;  // [tokens] of h; null: not kept
};

// A running sum going backwards. S is always stored where an update is undone. A detail that isn't
// stored hands its gradient to S's if it has none of its own (`grad` null): every update before had
// the same sign in both.
struct RunningGrad {
  const float* in = nullptr;  // [tokens, d] after the update that is undone; null: it is sum 0's
  float* out = nullptr;       // [tokens, d] before it, may be `in`; null: equals sum 0, not stored
  float undo = 1.0F;          // sign of the update that is undone
  float sign = 1.0F;          // of the update before it, whose gradient du is
  bool read = true;
  float bias = 0.0F;
  const float* dot = nullptr;  // [tokens], as the forward kept them
  const float* ratio = nullptr;
  const float* inverse = nullptr;
  float* grad = nullptr;       // [tokens, d] gradient of the sum, +=
  float* bias_grad = nullptr;  // [1] += sum of dlogit over the rows; null for S
};

// The backward of WriteRead's reader: of the PreNorm and of phase 2. First undoes the update that
// was written after the read (out = in - undo * u), so that the sums are what the reader saw; last
// gives the gradient of the update that was written before the read, du = sum of sign * grad.
template <typename C>
struct ReadBackward {
  int64_t d = 0;
  const C* dx = nullptr;               // [tokens, d]
  const float* h = nullptr;            // [tokens, d]
  const float* inverse_rms = nullptr;  // [tokens]
  const float* gain = nullptr;         // [d]; null: no norm
  float* gain_grad = nullptr;          // [d], partial sums, +=
  const C* undone = nullptr;           // [tokens, d], the update to undo; null: nothing is undone
  int running = 0;
  RunningGrad sums[kMostRunning];
  const float* query = nullptr;  // [d]
  const float* lse = nullptr;    // [tokens]
  float* query_grad = nullptr;   // [d], partial sums of dlogit k V, +=
  float* dh = nullptr;           // [tokens, d], = gradient of h, for MixFinishedBackward
  float* along = nullptr;        // [tokens], = dh . h
  C* du = nullptr;               // [tokens, d]; null: not wanted
};

// Phase 1 backwards, for all routers of a block at once: every source is read once and every
// gradient written once. With a_ij = exp(logit_ij - lse_i), dlogit_ij = a_ij (dh_i . v_j -
// along_i):
//   dV_j = (first ? 0 : dV_j) + sum_i (a_ij ratio_j dh_i + dlogit_ij k_j q_i)
//          - V_j k_j^2 / d sum_i dlogit_ij (logit_ij - bias_ij)
//   query_grad_i += sum_j dlogit_ij k_j V_j,  bias_grad_ij += dlogit_ij, summed over the tokens
template <typename R>
struct MixFinishedBackward {
  int64_t d = 0, tokens = 0, sources = 0, routers = 0;
  const R* const* rows = nullptr;
  const float* const* ratio = nullptr;
  const float* const* inverse = nullptr;
  const float* query = nullptr;   // [routers, d]
  const float* bias = nullptr;    // [routers, sources]
  const float* logits = nullptr;  // [routers, sources, tokens]
  const float* lse = nullptr;     // [routers, tokens]
  const float* along = nullptr;   // [routers, tokens]
  const float* dh = nullptr;      // [routers, tokens, d]
  float* const* grads = nullptr;  // [sources] -> [tokens, d]
  const bool* first = nullptr;    // [sources]: grads holds nothing yet
  float* query_grad = nullptr;    // [routers, d], partial sums
  float* bias_grad = nullptr;     // [routers, sources], partial sums
};

template <typename R>
struct FinishedKernels {
  void (*source_scalars)(const SourceScalars<R>&, int64_t begin, int64_t end);
  void (*mix)(const MixFinished<R>&, int64_t begin, int64_t end);
  void (*mix_backward)(const MixFinishedBackward<R>&, int64_t begin, int64_t end);
};

template <typename C>
struct RunningKernels {
  void (*write_read)(const WriteRead<C>&, int64_t begin, int64_t end);
  void (*read_backward)(const ReadBackward<C>&, int64_t begin, int64_t end);
};

}  // namespace wavroute::kernels
