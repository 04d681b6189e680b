// The running block: see kernels/route.h. A team of threads takes a token's row and holds it in
// registers from the first read to the last write.
#include "kernels/cuda/partial_sums.h"
#include "kernels/cuda/route.h"
#include "kernels/cuda/source_numbers.h"

namespace wavroute::kernels::cuda {
namespace {

// x[i] of a small array in registers, which cannot be addressed by a number.
template <int kCount>
WAVROUTE_DEVICE float pick(const float (&x)[kCount], int i) {
  float found = x[0];
  WAVROUTE_UNROLL for (int k = 1; k < kCount; ++k) found = k == i ? x[k] : found;
  return found;
}

WAVROUTE_DEVICE float inverse_root(float x) { return x > 0.0F ? 1.0F / root(x) : 0.0F; }

template <int n>
WAVROUTE_DEVICE void load_or_zeros(const Grid<const float>& rows, int64_t row, int64_t c,
                                   float (&to)[n]) {
  if (rows) return load<n>(rows[row] + c, to);
  for (int k = 0; k < n; ++k) to[k] = 0.0F;
}

// Columns c to c + n of the forms of parts.rows, after `write`, which is done.
template <int kParts, int n, typename C>
WAVROUTE_DEVICE void write_forms(const Parts& parts, const PartWrite<C>& write, int64_t row,
                                 int64_t c, float (&form)[kMostForms][n]) {
  float part[kMostParts][n];
  WAVROUTE_UNROLL for (int p = 0; p < kParts; ++p) {
    if (write.u && write.part == p) {
      float u[n];
      load<n>(write.u[row] + c, u);
      load_or_zeros<n>(write.in, row, c, part[p]);
      for (int k = 0; k < n; ++k) part[p][k] += u[k];
      store<n>(part[p], write.out[row] + c);
    } else {
      load_or_zeros<n>(parts.rows[p], row, c, part[p]);
    }
  }
  for (int k = 0; k < n; ++k) {
    if constexpr (kParts == 1) form[0][k] = part[0][k];
    if constexpr (kParts == 2) {
      form[0][k] = part[0][k] + part[1][k];
      form[1][k] = part[0][k] - part[1][k];
    }
    if constexpr (kParts == 4) {
      const float first = part[0][k] + part[1][k], second = part[2][k] + part[3][k];
      form[0][k] = first + second;
      form[1][k] = (part[0][k] - part[1][k]) + (part[2][k] - part[3][k]);
      form[2][k] = first - second;
    }
  }
}

// Calls kernel.operator()<kParts>() for the number of parts.
template <typename Kernel>
void with_parts(const Parts& parts, const Kernel& kernel) {
  switch (parts.count) {
    case 0:
      return kernel.template operator()<0>();
    case 1:
      return kernel.template operator()<1>();
    case 2:
      return kernel.template operator()<2>();
    default:
      return kernel.template operator()<4>();
  }
}
template <typename C>
bool takes_packs(const PartWrite<C>& write) {
  return cuda::takes_packs(write.u) && cuda::takes_packs(write.in) && cuda::takes_packs(write.out);
}
bool takes_packs(const Parts& parts) {
  bool all = true;
  for (int p = 0; p < parts.count; ++p) all = all && cuda::takes_packs(parts.rows[p]);
  return all;
}

// ---- write and read ----

// The weights of h: of `mixed`, and of every form, its ratio included.
struct Weights {
  float finished, running[kMostForms];
};

// From dot and square of every form, [dot 0, square 0, dot 1, ..]; `keeps`: this thread stores what
// the backward needs.
template <typename C, int kSums>
WAVROUTE_DEVICE Weights weigh(const WriteRead<C>& a, int64_t row, const float (&sums)[kSums],
                              bool keeps) {
  const float d = static_cast<float>(a.d);
  const float summary = sums[1] / d + a.matching_eps;
  float logit[kMostRunning], ratio[kMostRunning];
  const float before = a.peak[row];
  float peak = before;
  WAVROUTE_UNROLL for (int s = 0; s < kMostRunning; ++s) {
    if (s >= a.running) continue;
    const RunningSource& source = a.sources[s];
    const float dot = pick(sums, 2 * source.form), mean = pick(sums, 2 * source.form + 1) / d;
    float matched = 1.0F;  // ratio^2; 0 for a detail that is all zeros
    if (source.form > 0) {
      const float detail = mean + a.matching_eps;
      matched = detail > 0.0F ? summary / detail : 0.0F;
    }
    ratio[s] = root(matched);
    const float inverse = inverse_root(matched * mean + a.norm_eps);
    logit[s] = ratio[s] * inverse * dot + source.bias;
    peak = logit[s] > peak ? logit[s] : peak;
    if (!keeps) continue;
    if (source.dot != nullptr) source.dot[row] = dot;
    if (source.ratio != nullptr) source.ratio[row] = ratio[s];
    if (source.inverse != nullptr) source.inverse[row] = inverse;
  }
  const float scale = exponential(before - peak);
  float mass = a.mass[row] * scale, weight[kMostRunning];
  WAVROUTE_UNROLL for (int s = 0; s < kMostRunning; ++s) {
    weight[s] = s < a.running ? exponential(logit[s] - peak) : 0.0F;
    mass += weight[s];
  }
  if (keeps && a.lse != nullptr) a.lse[row] = peak + logarithm(mass);
  Weights w = {scale / mass, {}};
  WAVROUTE_UNROLL for (int s = 0; s < kMostRunning; ++s) {
    if (s >= a.running) continue;
    const float share = weight[s] / mass * ratio[s];
    WAVROUTE_UNROLL for (int f = 0; f < kMostForms; ++f) {
      if (a.sources[s].form == f) w.running[f] += share;
    }
  }
  return w;
}

template <typename C, int n, int kPacks, int kParts>
WAVROUTE_KERNEL write_read_rows(WriteRead<C> a, int64_t rows, RowShape shape) {
  constexpr int kForms = form_count(kParts);
  const Team team(shape);
  const int64_t row = block() * shape.teams + team.number;
  const bool is_row = row < rows;
  float v[kPacks][kMostForms][n] = {};
  float sums[2 * kMostForms] = {};
  if (is_row && kForms > 0) {
    team.for_packs<n, kPacks>(a.d, [&](int p, int64_t c) {
      write_forms<kParts, n>(a.parts, a.write, row, c, v[p]);
      float q[n];
      load<n>(a.query + c, q);
      WAVROUTE_UNROLL for (int f = 0; f < kForms; ++f) {
        for (int k = 0; k < n; ++k) {
          sums[2 * f] = fused(q[k], v[p][f][k], sums[2 * f]);
          sums[2 * f + 1] = fused(v[p][f][k], v[p][f][k], sums[2 * f + 1]);
        }
      }
    });
  }
  if constexpr (kForms > 0) team.sum(sums);
  Weights w = {};
  if (is_row) w = weigh(a, row, sums, team.lane == 0);
  float square[1] = {0.0F};
  if (is_row) {
    team.for_packs<n, kPacks>(a.d, [&](int p, int64_t c) {
      float h[n];
      load<n>(a.mixed[row] + c, h);
      for (int k = 0; k < n; ++k) {
        h[k] *= w.finished;
        WAVROUTE_UNROLL for (int f = 0; f < kForms; ++f) {
          h[k] = fused(w.running[f], v[p][f][k], h[k]);
        }
        square[0] = fused(h[k], h[k], square[0]);
        v[p][0][k] = h[k];  // the forms are not needed any more
      }
      if (a.h) store<n>(h, a.h[row] + c);
    });
  }
  team.sum(square);
  if (!is_row) return;
  const float inverse = inverse_root(square[0] / static_cast<float>(a.d) + a.norm_eps);
  if (team.lane == 0 && a.inverse_rms != nullptr) a.inverse_rms[row] = inverse;
  if (!a.x) return;
  team.for_packs<n, kPacks>(a.d, [&](int p, int64_t c) {
    if (a.gain != nullptr) {
      float gain[n];
      load<n>(a.gain + c, gain);
      for (int k = 0; k < n; ++k) v[p][0][k] *= inverse * gain[k];
    }
    store<n>(v[p][0], a.x[row] + c);
  });
}

// ---- the end of a block ----

template <typename C, int n, int kPacks, int kParts>
WAVROUTE_KERNEL finish_rows(FinishBlock<C> a, int64_t rows, RowShape shape) {
  constexpr int kForms = form_count(kParts);
  const Team team(shape);
  const int64_t row = block() * shape.teams + team.number;
  const bool is_row = row < rows;
  float square[kMostForms] = {};
  if (is_row) {
    team.for_packs<n, kPacks>(a.d, [&](int, int64_t c) {
      float v[kMostForms][n];
      write_forms<kParts, n>(a.parts, a.write, row, c, v);
      WAVROUTE_UNROLL for (int f = 0; f < kForms; ++f) {
        for (int k = 0; k < n; ++k) square[f] = fused(v[f][k], v[f][k], square[f]);
        WAVROUTE_UNROLL for (int s = 0; s < kMostRunning; ++s) {
          if (s < a.sums && a.form[s] == f) store<n>(v[f], a.rows[s][row] + c);
        }
      }
    });
  }
  team.sum(square);
  if (!is_row || team.lane != 0) return;
  const double d = static_cast<double>(a.d), summary = static_cast<double>(square[0]) / d;
  WAVROUTE_UNROLL for (int s = 0; s < kMostRunning; ++s) {
    if (s >= a.sums) continue;
    const double mean = static_cast<double>(pick(square, a.form[s])) / d;
    const SourceNumbers numbers =
        source_numbers(mean, summary, a.form[s] == 0, a.matching_eps, a.norm_eps);
    a.ratio[s][row] = numbers.ratio;
    a.inverse[s][row] = numbers.inverse;
  }
}

// ---- backward ----

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
WAVROUTE_DEVICE Chain derive(const ReadBackward<C>& a, int64_t row,
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
    const float weight = exponential(k * source.dot[row] + source.bias - a.lse[row]);
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
WAVROUTE_KERNEL read_backward_rows(ReadBackward<C> a, int64_t rows, int64_t part_rows, ReadParts to,
                                   RowShape shape) {
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
    const Chain chain = derive(a, row, m, team.lane == 0);
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

template <typename C>
void write_read(const WriteRead<C>& a, int64_t rows, Stream stream) {
  const bool in_packs = a.d % 4 == 0 && takes_packs(a.write) && takes_packs(a.parts) &&
                        takes_packs(a.query) && takes_packs(a.mixed) && takes_packs(a.gain) &&
                        takes_packs(a.h) && takes_packs(a.x);
  with_packs(in_packs, a.d, [&]<int n, int kPacks>(const RowShape& shape) {
    with_parts(a.parts, [&]<int kParts>() {
      launch(write_read_rows<C, n, kPacks, kParts>, shape.launch(rows, 2 * kMostForms), stream, a,
             rows, shape);
    });
  });
}

template <typename C>
void finish_block(const FinishBlock<C>& a, int64_t rows, Stream stream) {
  bool in_packs = a.d % 4 == 0 && takes_packs(a.write) && takes_packs(a.parts);
  for (int s = 0; s < a.sums; ++s) in_packs = in_packs && takes_packs(a.rows[s]);
  with_packs(in_packs, a.d, [&]<int n, int kPacks>(const RowShape& shape) {
    with_parts(a.parts, [&]<int kParts>() {
      if constexpr (kParts > 0) {
        launch(finish_rows<C, n, kPacks, kParts>, shape.launch(rows, kMostForms), stream, a, rows,
               shape);
      }
    });
  });
}

int64_t read_backward_floats(int64_t rows, int64_t d) {
  return part_count(rows) * (2 * d + kMostRunning);
}

template <typename C>
void read_backward(const ReadBackward<C>& a, int64_t rows, float* scratch, Stream stream) {
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
             stream, a, rows, part_rows, to, shape);
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

template void write_read(const WriteRead<float>&, int64_t, Stream);
template void write_read(const WriteRead<Bf16>&, int64_t, Stream);
template void finish_block(const FinishBlock<float>&, int64_t, Stream);
template void finish_block(const FinishBlock<Bf16>&, int64_t, Stream);
template void read_backward(const ReadBackward<float>&, int64_t, float*, Stream);
template void read_backward(const ReadBackward<Bf16>&, int64_t, float*, Stream);
template void update_grad(const UpdateGrad<float>&, int64_t, Stream);
template void update_grad(const UpdateGrad<Bf16>&, int64_t, Stream);

}  // namespace wavroute::kernels::cuda
