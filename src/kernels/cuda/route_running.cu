// The running block: see kernels/route.h. A team of threads takes a token's row and holds it in
// registers from the first read to the last write.
#include "kernels/cuda/route.h"
#include "kernels/cuda/running_forms.h"
#include "kernels/cuda/source_numbers.h"

namespace wavroute::kernels::cuda {
namespace {

// ---- write and read ----

// The weights of h: of `mixed`, and of every form, its ratio included.
struct Weights {
  float finished, running[kMostForms];
};

// From dot and square of every form, [dot 0, square 0, dot 1, ..]; `keeps`: this thread stores what
// the backward needs.
template <typename C, int kSums>
WAVROUTE_DEVICE Weights weigh(const WriteRead<C>& a, const float* bias, int64_t row,
                              const float (&sums)[kSums], bool keeps) {
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
    logit[s] = ratio[s] * inverse * dot + bias[s];
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
WAVROUTE_KERNEL write_read_rows(WriteRead<C> a, const float* bias, int64_t rows, RowShape shape) {
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
  if (is_row) w = weigh(a, bias, row, sums, team.lane == 0);
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

}  // namespace

template <typename C>
void write_read(const WriteRead<C>& a, const float* bias, int64_t rows, Stream stream) {
  const bool in_packs = a.d % 4 == 0 && takes_packs(a.write) && takes_packs(a.parts) &&
                        takes_packs(a.query) && takes_packs(a.mixed) && takes_packs(a.gain) &&
                        takes_packs(a.h) && takes_packs(a.x);
  with_packs(in_packs, a.d, [&]<int n, int kPacks>(const RowShape& shape) {
    with_parts(a.parts, [&]<int kParts>() {
      launch(write_read_rows<C, n, kPacks, kParts>, shape.launch(rows, 2 * kMostForms), stream, a,
             bias, rows, shape);
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

template void write_read(const WriteRead<float>&, const float*, int64_t, Stream);
template void write_read(const WriteRead<Bf16>&, const float*, int64_t, Stream);
template void finish_block(const FinishBlock<float>&, int64_t, Stream);
template void finish_block(const FinishBlock<Bf16>&, int64_t, Stream);

}  // namespace wavroute::kernels::cuda
