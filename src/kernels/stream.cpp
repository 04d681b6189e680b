#include "kernels/stream.h"

#include "kernels/kernels.h"
#include "kernels/sweep.h"

namespace wavroute::kernels::WAVROUTE_ISA {
namespace {

// Rows are taken four at a time: they share the loads of gain and scale and the sums of their
// gradients, and each has its own chain of additions. A row is computed the same way alone.
constexpr int kGroup = 4;

// Calls body(row, Count<n>{}) for groups of n = kGroup rows, then for single rows.
template <int n>
struct Count {
  static constexpr int value = n;
};
template <typename Body>
void for_row_groups(int64_t begin, int64_t end, Body body) {
  int64_t row = begin;
  for (; row + kGroup <= end; row += kGroup) body(row, Count<kGroup>{});
  for (; row < end; ++row) body(row, Count<1>{});
}

// ---- forward ----

// The optional operands of a call of add_norm.
struct Forward {
  bool u, scale, h_out, x, norm;
};

// h' of the rows from `row` on, columns from `i` on.
template <Forward has, int kRows, typename C, typename Lanes>
void updated(const AddNorm<C>& a, int64_t row, int64_t i, Lanes lanes, Vec (&h)[kRows]) {
  Vec factor = broadcast(a.coefficient);
  if constexpr (has.scale) factor *= lanes.load(a.scale + i);
  for (int r = 0; r < kRows; ++r) {
    h[r] = lanes.load(a.h[row + r] + i);
    if constexpr (has.u) h[r] = fma(factor, lanes.load(a.u[row + r] + i), h[r]);
  }
}

// Here and below `a` is a copy: behind a reference the compiler would have to read it again after
// every store, which might have changed it.
// The first pass reads every array once from memory, the second finds the rows in the L1 cache.
template <Forward has, int kRows, typename C>
void add_norm_rows(const AddNorm<C> a, int64_t row) {
  Vec squares[kRows] = {};
  sweep(a.d, [&](int64_t i, auto lanes) {
    Vec h[kRows];
    updated<has>(a, row, i, lanes, h);
    for (int r = 0; r < kRows; ++r) {
      if constexpr (has.h_out) lanes.store(a.h_out[row + r] + i, h[r]);
      if constexpr (has.x && !has.norm) lanes.store(a.x[row + r] + i, h[r]);
      if constexpr (has.norm) squares[r] = fma(h[r], h[r], squares[r]);
    }
  });
  if constexpr (has.norm) {
    Vec inverse[kRows];
    for (int r = 0; r < kRows; ++r) {
      const float mean = sum(squares[r]) / static_cast<float>(a.d);
      // A row of zeros with eps = 0 gets zero instead of 0 / 0, and no gradient.
      const float square = mean + a.eps;
      const float inverse_rms = square == 0.0F ? 0.0F : 1.0F / __builtin_sqrtf(square);
      if (a.inverse_rms != nullptr) a.inverse_rms[row + r] = inverse_rms;
      inverse[r] = broadcast(inverse_rms);
    }
    sweep(a.d, [&](int64_t i, auto lanes) {
      const Vec gain = lanes.load(a.gain + i);
      Vec h[kRows];
      if constexpr (has.h_out) {
        for (int r = 0; r < kRows; ++r) h[r] = lanes.load(a.h_out[row + r] + i);
      } else {
        updated<has>(a, row, i, lanes, h);
      }
      for (int r = 0; r < kRows; ++r) {
        lanes.store(a.x[row + r] + i, h[r] * inverse[r] * gain);
      }
    });
  }
}

template <Forward has, typename C>
void add_norm_range(const AddNorm<C>& a, int64_t begin, int64_t end) {
  for_row_groups(begin, end, [&](int64_t row, auto rows) {
    add_norm_rows<has, decltype(rows)::value>(a, row);
  });
}

template <typename C>
void add_norm(const AddNorm<C>& a, int64_t begin, int64_t end) {
  const auto output = [&](auto u, auto scale, auto h_out) {
    constexpr bool kU = decltype(u)::value;
    constexpr bool kScale = decltype(scale)::value;
    constexpr bool kHOut = decltype(h_out)::value;
    if (a.x && a.gain != nullptr) {
      add_norm_range<Forward{kU, kScale, kHOut, true, true}>(a, begin, end);
    } else if (a.x) {
      add_norm_range<Forward{kU, kScale, kHOut, true, false}>(a, begin, end);
    } else if constexpr (kHOut) {
      add_norm_range<Forward{kU, kScale, kHOut, false, false}>(a, begin, end);
    }
  };
  specialize(static_cast<bool>(a.h_out), [&](auto h_out) {
    if (!a.u) {
      output(Known<false>{}, Known<false>{}, h_out);
    } else {
      specialize(a.scale != nullptr, [&](auto scale) { output(Known<true>{}, scale, h_out); });
    }
  });
}

// ---- backward ----

// With n = h' / rms, the normalised row: the mean over the row of gain * dx * n, times 1 / rms,
// and gain_grad += dx * n, rows in their order.
template <bool has_gain_grad, int kRows, typename C>
void norm_sums(const AddNormBackward<C> a, int64_t row, Vec (&mean)[kRows]) {
  Vec inverse[kRows];
  Vec sums[kRows] = {};
  for (int r = 0; r < kRows; ++r) inverse[r] = broadcast(a.inverse_rms[row + r]);
  sweep(a.d, [&](int64_t i, auto lanes) {
    const Vec gain = lanes.load(a.gain + i);
    Vec gain_grad = zero();
    if constexpr (has_gain_grad) gain_grad = lanes.load(a.gain_grad + i);
    for (int r = 0; r < kRows; ++r) {
      const Vec normed = lanes.load(a.h[row + r] + i) * inverse[r];
      const Vec product = lanes.load(a.dx[row + r] + i) * normed;
      gain_grad += product;
      sums[r] = fma(gain, product, sums[r]);
    }
    if constexpr (has_gain_grad) lanes.store(a.gain_grad + i, gain_grad);
  });
  for (int r = 0; r < kRows; ++r) {
    mean[r] = broadcast(sum(sums[r]) / static_cast<float>(a.d)) * inverse[r];
  }
}

// dh = (first ? 0 : dh) + (gain * dx - n * mean(gain * dx * n)) / rms; without a gain, ... + dx.
template <bool first, bool norm, int kRows, typename C>
void stream_grad(const AddNormBackward<C> a, int64_t row, const Vec (&mean)[kRows]) {
  Vec inverse[kRows];
  if constexpr (norm) {
    for (int r = 0; r < kRows; ++r) inverse[r] = broadcast(a.inverse_rms[row + r]);
  }
  sweep(a.d, [&](int64_t i, auto lanes) {
    Vec gain = zero();
    if constexpr (norm) gain = lanes.load(a.gain + i);
    Vec dh[kRows];
    for (int r = 0; r < kRows; ++r) {
      const Vec before = first ? zero() : lanes.load(a.dh[row + r] + i);
      const Vec dx = lanes.load(a.dx[row + r] + i);
      if constexpr (norm) {
        const Vec across = fma(-mean[r], lanes.load(a.h[row + r] + i), gain * dx);
        dh[r] = fma(inverse[r], across, before);
      } else {
        dh[r] = before + dx;
      }
    }
    for (int r = 0; r < kRows; ++r) lanes.store(a.dh[row + r] + i, dh[r]);
  });
}

// The operands of the update's gradients.
struct Update {
  bool scale_grad, du, scale;
};

// du = coefficient * scale * dh;  scale_grad += coefficient * dh * u, rows in their order.
template <Update has, int kRows, typename C>
void update_grad(const AddNormBackward<C> a, int64_t row) {
  const Vec coefficient = broadcast(a.coefficient);
  sweep(a.d, [&](int64_t i, auto lanes) {
    Vec scale_grad = zero();
    if constexpr (has.scale_grad) scale_grad = lanes.load(a.scale_grad + i);
    Vec factor = coefficient;
    if constexpr (has.scale) factor *= lanes.load(a.scale + i);
    for (int r = 0; r < kRows; ++r) {
      const Vec dh = lanes.load(a.dh[row + r] + i);
      if constexpr (has.scale_grad) {
        scale_grad = fma(coefficient * dh, lanes.load(a.u[row + r] + i), scale_grad);
      }
      if constexpr (has.du) lanes.store(a.du[row + r] + i, factor * dh);
    }
    if constexpr (has.scale_grad) lanes.store(a.scale_grad + i, scale_grad);
  });
}

template <bool first, int kRows, typename C>
void through_norm(const AddNormBackward<C>& a, int64_t row) {
  Vec mean[kRows] = {};
  if (!a.dx) {
    if constexpr (first) {
      sweep(a.d, [&](int64_t i, auto lanes) {
        for (int r = 0; r < kRows; ++r) lanes.store(a.dh[row + r] + i, zero());
      });
    }
  } else if (a.gain == nullptr) {
    stream_grad<first, false>(a, row, mean);
  } else {
    specialize(a.gain_grad != nullptr,
               [&](auto has) { norm_sums<decltype(has)::value>(a, row, mean); });
    stream_grad<first, true>(a, row, mean);
  }
}

template <int kRows, typename C>
void through_update(const AddNormBackward<C>& a, int64_t row) {
  if (!a.du) {
    if (a.scale_grad != nullptr) update_grad<Update{true, false, false}, kRows>(a, row);
    return;
  }
  specialize(a.scale_grad != nullptr, [&](auto scale_grad) {
    specialize(a.scale != nullptr, [&](auto scale) {
      constexpr Update has{decltype(scale_grad)::value, true, decltype(scale)::value};
      update_grad<has, kRows>(a, row);
    });
  });
}

template <typename C>
void add_norm_backward(const AddNormBackward<C>& a, int64_t begin, int64_t end) {
  for_row_groups(begin, end, [&](int64_t row, auto rows) {
    constexpr int kRows = decltype(rows)::value;
    specialize(a.first, [&](auto first) { through_norm<decltype(first)::value, kRows>(a, row); });
    through_update<kRows>(a, row);
  });
}

template <typename C>
constexpr StreamKernels<C> stream_table() {
  return {add_norm<C>, add_norm_backward<C>};
}

}  // namespace

extern const ByType<StreamKernels> stream_kernels;
const ByType<StreamKernels> stream_kernels = {stream_table<float>(), stream_table<Bf16>()};

}  // namespace wavroute::kernels::WAVROUTE_ISA
