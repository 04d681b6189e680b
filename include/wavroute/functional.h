// The residual streams as differentiable functions, for your own models: each call is one node of
// an autograd graph and one pass of our kernels. docs/method.md has the mathematics.
//
// One block of WAV, K sublayers, under ordinary autograd ([tokens, d] throughout):
//
//   // finished: std::vector<at::Tensor> rows, and ratio, inverse [n, tokens], from
//   // source_scalars(e) and the route_finish of every block before
//   Mixture all = route_mix(finished.rows, finished.ratio, finished.inverse, q, beta);  // phase 1
//   std::vector<Mixture> mixtures = all.unbind();                  // [K] routers of the block
//   Parts parts(4);                                                // none is written yet
//   at::Tensor x = route_read({}, 0, {}, {}, mixtures[0], {q[0], {}, gain[0]}, eps).x;
//   for (int i = 0; i < K; ++i) {
//     at::Tensor u = sublayer[i](x);
//     int part = (p[i] < 0 ? 1 : 0) + (q_sign[i] < 0 ? 2 : 0);     // its signs in P and Q
//     if (i + 1 == K) {
//       Finished block = route_finish(u, part, parts, {0, 1, 2}, eps);
//       ...                       // append to finished; then the next block, or the read-out
//     } else {
//       Read read = route_read(u, part, parts, {0, 1, 2}, mixtures[i + 1],
//                              {q[i + 1], running_bias[i + 1], gain[i + 1]}, eps);
//       parts[part] = read.part;
//       x = read.x;
//     }
//   }
//
// Where there are no details, parts and forms are one: Parts(1), {0}. With one detail they are two:
// Parts(2), {0, 1}. A form may be left out (partial_details = false reads {0} alone).
//
// Types: float on the CPU runs on our kernels, updates and x also in bfloat16. Double, other types
// and other devices run the same formulas composed of stock operators, under autograd.
// Errors: c10::Error, "[operator] expected ..., got ...". The number of threads changes no bit.
// Where our kernels run, gradients can't be differentiated again.
// Python: torch.ops.load_library("libwavroute.so"), then torch.ops.wavroute.*, the same functions
// with what the backward keeps as further results.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace wavroute::functional {

// Added inside square roots: of the key norm and the PreNorm, and in both sides of a matching
// ratio.
struct Eps {
  double norm = 1e-6;
  double matching = 1e-12;
};

// ---- additive schemes (method.md section 2) ----------------------------------------------------

struct Normed {
  at::Tensor h;  // [..., d] like the stream
  at::Tensor x;  // [..., d] in the compute type
};

// h' = h + coefficient scale u;  x = gain h' / rms(h'), rms = sqrt(mean h'^2 + eps).
// h [..., d] float; u [..., d] in the compute type, undefined: nothing is added; scale [1] or [d]
// float, undefined: 1; gain [d] float, undefined: x = h'. `type`: the compute type, by default u's,
// else h's. Gradients: to h, u, scale and gain.
[[nodiscard]] Normed add_norm(const at::Tensor& h, const at::Tensor& u, const at::Tensor& gain,
                              double eps, const at::Tensor& scale = {}, double coefficient = 1.0,
                              std::optional<at::ScalarType> type = {});

// ---- routed schemes (method.md sections 3 to 5) ------------------------------------------------

struct SourceScalars {
  at::Tensor ratio;    // rho [tokens] float
  at::Tensor inverse;  // 1 / rms(rho V) [tokens] float
};

// Of a finished source V = row [tokens, d], float or bfloat16: the matching ratio to its summary
// (undefined: the row is a summary, ratio 1), and the inverse rms of what readers see. No
// gradients: the ratio is detached by definition (section 3), the inverse's gradient is part of
// route_mix's.
[[nodiscard]] SourceScalars source_scalars(const at::Tensor& row, const at::Tensor& summary,
                                           const Eps& eps = {});

// The result of phase 1 for R routers, or for one, without the dimension R.
struct Mixture {
  at::Tensor mixed;  // o [R, tokens, d] float
  at::Tensor peak;   // m [R, tokens] float, a constant for the gradient
  at::Tensor mass;   // s [R, tokens] float

  // One Mixture per router, by a single graph node: R selections would each write a gradient of [R,
  // ...].
  [[nodiscard]] std::vector<Mixture> unbind() const;
};

// Phase 1 (section 5), all routers of a block over its n >= 1 finished sources v_j = ratio_j V_j:
//   logit_ij = q_i . v_j / rms(v_j) + bias_ij,  m_i = max_j logit_ij
//   s_i = sum_j exp(logit_ij - m_i),  o_i = sum_j exp(logit_ij - m_i) v_j
// rows: n of [tokens, d], raw sums, float or bfloat16; ratio, inverse [n, tokens] float (of
// source_scalars and route_finish); query [R, d] float, w * g; bias [R, n] float, 0 for a summary.
// Gradients (section 4): to rows, query and bias, from mixed and mass.
[[nodiscard]] Mixture route_mix(at::TensorList rows, const at::Tensor& ratio,
                                const at::Tensor& inverse, const at::Tensor& query,
                                const at::Tensor& bias);

// The running block: 0, 1, 2 or 4 sums of updates [tokens, d] float, each of updates whose signs
// agree in every detail; undefined: no update yet. Readers see forms of them:
//   1 part    form 0 = a = S
//   2 parts   form 0 = a + b = S         form 1 = a - b, the detail
//   4 parts   form 0 = S = a + b + c + d  form 1 = P = a - b + c - d  form 2 = Q = a + b - c - d
// An update goes to the part whose number has bit 0 set where its sign in form 1 is -1, and bit 1
// where it is -1 in form 2.
using Parts = std::vector<at::Tensor>;

// One reader: a router and the PreNorm after it.
struct Reader {
  at::Tensor query;  // [d] float, w * g
  at::Tensor bias;   // [forms] float, of its running sources, 0 for S; undefined: no forms
  at::Tensor gain;   // [d] float; undefined: no norm, x = h
};
struct Read {
  at::Tensor part;  // [tokens, d] float: parts[part] after the write; undefined without one
  at::Tensor x;     // [tokens, d] in the compute type
};

// The write of an update, then phase 2 of the reader after it and its PreNorm:
//   part' = part + u;  h = softmax over the finished sources of `finished` and the forms
//   `forms` of the parts, each matched to S (section 3);  x = gain h / rms(h)
// u [tokens, d] in the compute type, undefined: nothing is written. `forms`: at most 3, each a
// running source. `finished`: of this reader, [tokens, d] and [tokens]; in a bf16 read its o and
// the gradient of o are rounded to bf16. `type`: the compute type where there is no u, by default
// float. Gradients: to u, to every part, to mixed and mass of `finished`, to query, bias and gain.
[[nodiscard]] Read route_read(const at::Tensor& u, int64_t part, std::span<const at::Tensor> parts,
                              at::IntArrayRef forms, const Mixture& finished, const Reader& reader,
                              const Eps& eps = {}, std::optional<at::ScalarType> type = {});

struct Finished {
  std::vector<at::Tensor> rows;  // of [tokens, d] float: the forms, as finished sources
  at::Tensor ratio, inverse;     // [forms, tokens] float
};

// The last write of a block: its forms become finished sources. u undefined: nothing is written.
// Gradients: to u and every part, from the rows.
[[nodiscard]] Finished route_finish(const at::Tensor& u, int64_t part,
                                    std::span<const at::Tensor> parts, at::IntArrayRef forms,
                                    const Eps& eps = {});

}  // namespace wavroute::functional
