#include "kernels/cuda/stream.h"

#include "kernels/cuda/partial_sums.h"

namespace wavroute::kernels::cuda {
namespace {

template <typename C, int n, int kPacks>
WAVROUTE_KERNEL add_norm_rows(AddNorm<C> a, int64_t rows, RowShape shape) {
  const Team team(shape);
  const int64_t row = block() * shape.teams + team.number;
  const bool is_row = row < rows;
  float h[kPacks][n] = {};
  float square[1] = {0.0F};
  if (is_row) {
    team.for_packs<n, kPacks>(a.d, [&](int p, int64_t c) {
      load<n>(a.h[row] + c, h[p]);
      if (a.u) {
        float u[n], scale[n];
        load<n>(a.u[row] + c, u);
        load_or_ones<n>(a.scale, c, scale);
        for (int k = 0; k < n; ++k) h[p][k] = fused(a.coefficient * scale[k], u[k], h[p][k]);
      }
      if (a.h_out) store<n>(h[p], a.h_out[row] + c);
      for (int k = 0; k < n; ++k) square[0] = fused(h[p][k], h[p][k], square[0]);
    });
  }
  if (!a.x) return;
  float inverse = 1.0F;
  if (a.gain != nullptr) {
    team.sum(square);
    const float mean_square = square[0] / static_cast<float>(a.d) + a.eps;
    // A row of zeros with eps = 0 gets zero instead of 0 / 0, and no gradient.
    inverse = mean_square == 0.0F ? 0.0F : 1.0F / root(mean_square);
    if (is_row && team.lane == 0 && a.inverse_rms != nullptr) a.inverse_rms[row] = inverse;
  }
  if (!is_row) return;
  team.for_packs<n, kPacks>(a.d, [&](int p, int64_t c) {
    if (a.gain != nullptr) {
      float gain[n];
      load<n>(a.gain + c, gain);
      for (int k = 0; k < n; ++k) h[p][k] *= inverse * gain[k];
    }
    store<n>(h[p], a.x[row] + c);
  });
}

// A team takes the rows of one part. What it adds over them lies in its registers until its end.
template <typename C, int n, int kPacks>
WAVROUTE_KERNEL add_norm_backward_rows(AddNormBackward<C> a, int64_t rows, int64_t part_rows,
                                       float* gain_parts, float* scale_parts, RowShape shape) {
  const Team team(shape);
  const int64_t part = block() * shape.teams + team.number;
  const bool has_norm = a.dx && a.gain != nullptr;
  float gain_sum[kPacks][n] = {}, scale_sum[kPacks][n] = {};
  for (int64_t r = 0; r < part_rows; ++r) {  // as many for all teams: they meet in sums
    const int64_t row = part * part_rows + r;
    const bool is_row = row < rows;
    const float inverse = has_norm && is_row ? a.inverse_rms[row] : 0.0F;
    float normal[kPacks][n] = {}, dx[kPacks][n] = {};  // h' / rms; gain dx, or dx without a norm
    float mean[1] = {0.0F};
    if (a.dx && is_row) {
      team.for_packs<n, kPacks>(a.d, [&](int p, int64_t c) {
        load<n>(a.dx[row] + c, dx[p]);
        if (!has_norm) return;
        float gain[n];
        load<n>(a.gain + c, gain);
        load<n>(a.h[row] + c, normal[p]);
        for (int k = 0; k < n; ++k) {
          normal[p][k] *= inverse;
          gain_sum[p][k] = fused(dx[p][k], normal[p][k], gain_sum[p][k]);
          dx[p][k] *= gain[k];
          mean[0] = fused(dx[p][k], normal[p][k], mean[0]);
        }
      });
    }
    if (has_norm) {
      team.sum(mean);
      mean[0] /= static_cast<float>(a.d);
    }
    if (!is_row) continue;
    team.for_packs<n, kPacks>(a.d, [&](int p, int64_t c) {
      float dh[n] = {};
      if (!a.first) load<n>(a.dh[row] + c, dh);
      for (int k = 0; k < n && a.dx; ++k) {
        dh[k] += has_norm ? inverse * (dx[p][k] - normal[p][k] * mean[0]) : dx[p][k];
      }
      store<n>(dh, a.dh[row] + c);
      float scale[n], u[n];
      load_or_ones<n>(a.scale, c, scale);
      if (a.scale_grad != nullptr) {
        load<n>(a.u[row] + c, u);
        for (int k = 0; k < n; ++k) {
          scale_sum[p][k] = fused(a.coefficient * dh[k], u[k], scale_sum[p][k]);
        }
      }
      if (!a.du) return;
      for (int k = 0; k < n; ++k) dh[k] *= a.coefficient * scale[k];
      store<n>(dh, a.du[row] + c);
    });
  }
  if (part * part_rows >= rows) return;
  team.for_packs<n, kPacks>(a.d, [&](int p, int64_t c) {
    if (gain_parts != nullptr) store<n>(gain_sum[p], gain_parts + part * a.d + c);
    if (scale_parts != nullptr) store<n>(scale_sum[p], scale_parts + part * a.d + c);
  });
}

}  // namespace

int64_t partial_sums(int64_t rows) { return part_count(rows); }

template <typename C>
void add_norm(const AddNorm<C>& a, int64_t rows, Stream stream) {
  if (!a.x && !a.h_out) return;
  const bool in_packs = a.d % 4 == 0 && takes_packs(a.h) && takes_packs(a.u) &&
                        takes_packs(a.h_out) && takes_packs(a.x) && takes_packs(a.scale) &&
                        takes_packs(a.gain);
  with_packs(in_packs, a.d, [&]<int n, int kPacks>(const RowShape& shape) {
    launch(add_norm_rows<C, n, kPacks>, shape.launch(rows, 1), stream, a, rows, shape);
  });
}

template <typename C>
void add_norm_backward(const AddNormBackward<C>& a, int64_t rows, float* scratch, Stream stream) {
  const int64_t part_rows = rows_of_part(rows), parts = part_count(rows);
  float* const gain = a.gain_grad != nullptr && a.gain != nullptr && a.dx ? scratch : nullptr;
  float* scale = nullptr;
  if (a.scale_grad != nullptr) scale = gain == nullptr ? scratch : scratch + parts * a.d;
  const bool in_packs = a.d % 4 == 0 && takes_packs(a.dx) && takes_packs(a.h) &&
                        takes_packs(a.dh) && takes_packs(a.u) && takes_packs(a.du) &&
                        takes_packs(a.gain) && takes_packs(a.scale) && takes_packs(scratch);
  with_packs(in_packs, a.d, [&]<int n, int kPacks>(const RowShape& shape) {
    launch(add_norm_backward_rows<C, n, kPacks>, shape.launch(parts, 1), stream, a, rows, part_rows,
           gain, scale, shape);
  });
  if (gain != nullptr) add_parts_to(gain, parts, a.d, {a.gain_grad, a.d}, a.d, stream);
  if (scale != nullptr) add_parts_to(scale, parts, a.d, {a.scale_grad, a.d}, a.d, stream);
}

template void add_norm(const AddNorm<float>&, int64_t, Stream);
template void add_norm(const AddNorm<Bf16>&, int64_t, Stream);
template void add_norm_backward(const AddNormBackward<float>&, int64_t, float*, Stream);
template void add_norm_backward(const AddNormBackward<Bf16>&, int64_t, float*, Stream);

}  // namespace wavroute::kernels::cuda
