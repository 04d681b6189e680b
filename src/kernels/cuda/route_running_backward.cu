// The running block backwards: see kernels/route.h. A team of threads takes the rows of a part, one
// after the other.
#include "kernels/cuda/partial_sums.h"
#include "kernels/cuda/route.h"
#include "kernels/cuda/running_forms.h"

namespace wavroute::kernels::cuda {
namespace {

// Products of g = gain dx, h and the forms V. With dh = r (g - h r^2/d (g . h)) every product of dh
// follows from them, so that dh need not be computed first.
struct Products {
  static constexpr int kGh = 0, kHh = 1, kGv = 2, kHv = kGv + kMostForms;
  static constexpr int kCount = kHv + kMostForms;
};

// The gradients of one token's reader: dh = dx_part gain dx - h_part h, and of each form
// grad += dh_part dh + query_part q - value_part V.
struct Chain {
  float dx_part = 1.0F, h_part = 0.0F;
  float dh_part[kMostForms] = {}, query_part[kMostForms] = {}, value_part[kMostForms] = {};
  float dlogit[kMostRunning] = {};
};

template <typename C>
WAVROUTE_DEVICE Chain derive(const ReadBackward<C>& a, const float* bias, int64_t row,
                             const float (&m)[Products::kCount], bool keeps) {
  const float d = static_cast<float>(a.d);
  Chain chain;
  if (a.gain != nullptr) {
    const float r = a.inverse_rms[row];
    chain.dx_part = r;
    chain.h_part = r * r * r / d * m[Products::kGh];
  }
  const float along = chain.dx_part * m[Products::kGh] - chain.h_part * m[Products::kHh];
  if (keeps) a.along[row] = along;
  WAVROUTE_UNROLL for (int s = 0; s < kMostRunning; ++s) {
    if (s >= a.running) continue;
    const RunningSourceGrad& source = a.sources[s];
    const float ratio = source.ratio[row], k = ratio * source.inverse[row];
    const float weight = exponential(k * source.dot[row] + bias[s] - a.lse[row]);
    const float dh_v = chain.dx_part * pick(m, Products::kGv + source.form) -
                       chain.h_part * pick(m, Products::kHv + source.form);
    chain.dlogit[s] = weight * (ratio * dh_v - along);
    WAVROUTE_UNROLL for (int f = 0; f < kMostForms; ++f) {
      if (source.form != f) continue;
      chain.dh_part[f] += weight * ratio;
      chain.query_part[f] += chain.dlogit[s] * k;
      chain.value_part[f] += chain.dlogit[s] * k * (k * k / d * source.dot[row]);
    }
  }
  return chain;
}

// Partial sums over the rows of a part; null: not wanted.
struct ReadParts {
  float *gain = nullptr, *query = nullptr;  // [parts, d]
  float* bias = nullptr;                    // [parts, kMostRunning]
};

template <typename C, int n, int kPacks, int kParts>
WAVROUTE_KERNEL read_backward_rows(ReadBackward<C> a, const float* bias, int64_t rows,
                                   int64_t part_rows, ReadParts to, RowShape shape) {
  constexpr int kForms = form_count(kParts);
  const Team team(shape);
  const int64_t part = block() * shape.teams + team.number;
  bool has_details = false;
  WAVROUTE_UNROLL for (int s = 0; s < kMostRunning; ++s) {
    has_details = has_details || (s < a.running && a.sources[s].form > 0);
  }
  const int read = has_details ? kForms : 1;  // forms that the reader changes
  float gain_sum[kPacks][n] = {}, query_sum[kPacks][n] = {}, bias_sum[kMostRunning] = {};
  for (int64_t r = 0; r < part_rows; ++r) {  // as many for all teams: they meet in sums
    const int64_t row = part * part_rows + r;
    const bool is_row = row < rows;
    float v[kPacks][kMostForms][n] = {}, dx[kPacks][n] = {}, h[kPacks][n] = {};
    float m[Products::kCount] = {};
    if (is_row) {
      team.for_packs<n, kPacks>(a.d, [&](int p, int64_t c) {
        write_forms<kParts, n>(a.parts, PartWrite<C>{}, row, c, v[p]);
        load<n>(a.dx[row] + c, dx[p]);
        load<n>(a.h[row] + c, h[p]);
        float gain[n];
        load_or_ones<n>(a.gain, c, gain);
        for (int k = 0; k < n; ++k) {
          const float g = gain[k] * dx[p][k];
          m[Products::kGh] = fused(g, h[p][k], m[Products::kGh]);
          m[Products::kHh] = fused(h[p][k], h[p][k], m[Products::kHh]);
          WAVROUTE_UNROLL for (int f = 0; f < kForms; ++f) {
            m[Products::kGv + f] = fused(g, v[p][f][k], m[Products::kGv + f]);
            m[Products::kHv + f] = fused(h[p][k], v[p][f][k], m[Products::kHv + f]);
          }
        }
      });
    }
    team.sum(m);
    if (!is_row) continue;
    const Chain chain = derive(a, bias, row, m, team.lane == 0);
    for (int s = 0; s < kMostRunning; ++s) bias_sum[s] += chain.dlogit[s];
    team.for_packs<n, kPacks>(a.d, [&](int p, int64_t c) {
      float gain[n], dh[n], q[n], du[n] = {};
      load_or_ones<n>(a.gain, c, gain);
      for (int k = 0; k < n; ++k) {
        const float normed = chain.dx_part * dx[p][k];
        dh[k] = fused(-chain.h_part, h[p][k], normed * gain[k]);
        gain_sum[p][k] = fused(normed, h[p][k], gain_sum[p][k]);
      }
      store<n>(dh, a.dh[row] + c);
      if constexpr (kForms > 0) load<n>(a.query + c, q);
      WAVROUTE_UNROLL for (int f = 0; f < kForms; ++f) {
        float g[n], joined[n];
        load<n>(a.forms[f].grad[row] + c, g);
        load_or_zeros<n>(a.forms[f].joined, row, c, joined);
        for (int k = 0; k < n; ++k) {
          g[k] += joined[k];
          if (f < read) {
            g[k] = fused(chain.dh_part[f], dh[k], g[k]);
            g[k] = fused(chain.query_part[f], q[k], g[k]);
            g[k] = fused(-chain.value_part[f], v[p][f][k], g[k]);
            query_sum[p][k] = fused(chain.query_part[f], v[p][f][k], query_sum[p][k]);
          }
          du[k] = fused(a.forms[f].sign, g[k], du[k]);
        }
        if (f < read || a.forms[f].joined) store<n>(g, a.forms[f].grad[row] + c);
      }
      if (a.du) store<n>(du, a.du[row] + c);
    });
  }
  if (part * part_rows >= rows) return;
  team.for_packs<n, kPacks>(a.d, [&](int p, int64_t c) {
    if (to.gain != nullptr) store<n>(gain_sum[p], to.gain + part * a.d + c);
    if (to.query != nullptr) store<n>(query_sum[p], to.query + part * a.d + c);
  });
  if (team.lane != 0 || to.bias == nullptr) return;
  for (int s = 0; s < kMostRunning; ++s) to.bias[part * kMostRunning + s] = bias_sum[s];
}

struct BiasGrads {
  float* to[kMostRunning] = {};
};
WAVROUTE_KERNEL add_bias_grads(const float* parts, int64_t count, BiasGrads grads) {
  const Team team(RowShape{});
  float sum[kMostRunning] = {};
  for (int64_t p = thread(); p < count; p += kWarp) {
    for (int s = 0; s < kMostRunning; ++s) sum[s] += parts[p * kMostRunning + s];
  }
  team.sum(sum);
  if (thread() != 0) return;
  WAVROUTE_UNROLL for (int s = 0; s < kMostRunning; ++s) {
    if (grads.to[s] != nullptr) *grads.to[s] += sum[s];
  }
}

template <typename C, int n>
WAVROUTE_KERNEL update_grad_packs(UpdateGrad<C> a, int64_t rows, RowShape shape) {
  const Team team(shape);
  const int64_t row = block() * shape.teams + team.number;
  if (row >= rows) return;
  for (int64_t c = int64_t{team.lane} * n; c < a.d; c += int64_t{team.threads} * n) {
    float du[n] = {};
    WAVROUTE_UNROLL for (int s = 0; s < kMostRunning; ++s) {
      if (s >= a.sums) continue;
      float grad[n];
      load<n>(a.grads[s][row] + c, grad);
      for (int k = 0; k < n; ++k) du[k] = fused(a.sign[s], grad[k], du[k]);
    }
    store<n>(du, a.du[row] + c);
  }
}

}  // namespace

int64_t read_backward_floats(int64_t rows, int64_t d) {
  return part_count(rows) * (2 * d + kMostRunning);
}

template <typename C>
void read_backward(const ReadBackward<C>& a, const float* bias, int64_t rows, float* scratch,
                   Stream stream) {
  const int64_t part_rows = rows_of_part(rows), parts = part_count(rows);
  ReadParts to;
  if (a.gain_grad != nullptr) to.gain = scratch;
  if (a.query_grad != nullptr && a.parts.count > 0) to.query = scratch + parts * a.d;
  BiasGrads biases;
  for (int s = 0; s < a.running; ++s) {
    biases.to[s] = a.sources[s].bias_grad;
    if (biases.to[s] != nullptr) to.bias = scratch + 2 * parts * a.d;
  }
  bool in_packs = a.d % 4 == 0 && takes_packs(a.dx) && takes_packs(a.h) && takes_packs(a.gain) &&
                  takes_packs(a.parts) && takes_packs(a.query) && takes_packs(a.dh) &&
                  takes_packs(a.du) && takes_packs(scratch);
  for (int f = 0; f < form_count(a.parts.count); ++f) {
    in_packs = in_packs && takes_packs(a.forms[f].grad) && takes_packs(a.forms[f].joined);
  }
  with_packs(in_packs, a.d, [&]<int n, int kPacks>(const RowShape& shape) {
    with_parts(a.parts, [&]<int kParts>() {
      launch(read_backward_rows<C, n, kPacks, kParts>, shape.launch(parts, Products::kCount),
             stream, a, bias, rows, part_rows, to, shape);
    });
  });
  if (to.gain != nullptr) add_parts_to(to.gain, parts, a.d, {a.gain_grad, a.d}, a.d, stream);
  if (to.query != nullptr) add_parts_to(to.query, parts, a.d, {a.query_grad, a.d}, a.d, stream);
  if (to.bias == nullptr) return;
  launch(add_bias_grads, {1, kWarp, 0}, stream, static_cast<const float*>(to.bias), parts, biases);
}

template <typename C>
void update_grad(const UpdateGrad<C>& a, int64_t rows, Stream stream) {
  bool in_packs = a.d % 4 == 0 && takes_packs(a.du);
  for (int s = 0; s < a.sums; ++s) in_packs = in_packs && takes_packs(a.grads[s]);
  const RowShape shape = row_shape(a.d, in_packs ? 4 : 1);
  launch(in_packs ? update_grad_packs<C, 4> : update_grad_packs<C, 1>, shape.launch(rows, 0),
         stream, a, rows, shape);
}

template void read_backward(const ReadBackward<float>&, const float*, int64_t, float*, Stream);
template void read_backward(const ReadBackward<Bf16>&, const float*, int64_t, float*, Stream);
template void update_grad(const UpdateGrad<float>&, int64_t, Stream);
template void update_grad(const UpdateGrad<Bf16>&, int64_t, Stream);

}  // namespace wavroute::kernels::cuda
