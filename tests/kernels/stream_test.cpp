#include "kernels/stream.h"

#include <cmath>
#include <utility>

#include "tests/kernels/kernel_test.h"

namespace wavroute::kernels {
namespace {

using Doubles = std::vector<double>;
constexpr double kEps = 1e-6;
constexpr float kCoefficient = 0.75F;

// Float results: a sum of up to 1024 products of numbers near 1, rounded to 24 bits at each step
// of a lane's chain. Bf16 results: stored with 8 bits, half a unit of which is 2^-9.
constexpr double kFloatTolerance = 1e-5;
template <typename C>
constexpr double kTolerance = sizeof(C) == sizeof(float) ? kFloatTolerance : 4e-3;

constexpr int64_t kWidths[] = {1, 37, 64, 333, 1024};
constexpr int64_t kTokens = 7;  // one group of rows and some left over

// ---- the reference: equations of the norm and the stream in double ----

struct Reference {
  int64_t d, tokens;
  Doubles h, u, scale, gain;  // u empty: nothing is added; gain empty: no norm

  Doubles updated() const {
    Doubles result = h;
    for (size_t i = 0; i < u.size(); ++i) {
      result[i] += kCoefficient * scale[i % static_cast<size_t>(d)] * u[i];
    }
    return result;
  }
  Doubles inverse_rms() const {
    const Doubles stream = updated();
    Doubles result;
    for (int64_t t = 0; t < tokens; ++t) {
      double mean = 0;
      for (int64_t c = 0; c < d; ++c) mean += std::pow(stream[t * d + c], 2) / double(d);
      result.push_back(1 / std::sqrt(mean + kEps));
    }
    return result;
  }
  Doubles x() const {
    Doubles result = updated();
    if (gain.empty()) return result;
    const Doubles inverse = inverse_rms();
    for (int64_t i = 0; i < tokens * d; ++i) result[i] *= gain[i % d] * inverse[i / d];
    return result;
  }
};

// The gradients of  sum(dx * x) + sum(dh * h')  by textbook formulas, at stream h'.
struct ReferenceGrads {
  Doubles dh, du, gain, scale;
};
ReferenceGrads textbook_grads(const Reference& r, const Doubles& dx, const Doubles& dh) {
  ReferenceGrads g{dh, Doubles(r.u.size()), Doubles(r.d), Doubles(r.d)};
  const Doubles stream = r.updated(), inverse = r.inverse_rms();
  for (int64_t t = 0; t < r.tokens; ++t) {
    double mean = 0;
    for (int64_t c = 0; c < r.d && !r.gain.empty(); ++c) {
      const double normal = stream[t * r.d + c] * inverse[t];
      mean += r.gain[c] * dx[t * r.d + c] * normal / double(r.d);
      g.gain[c] += dx[t * r.d + c] * normal;
    }
    for (int64_t c = 0; c < r.d; ++c) {
      const int64_t i = t * r.d + c;
      g.dh[i] +=
          r.gain.empty() ? dx[i] : inverse[t] * (r.gain[c] * dx[i] - stream[i] * inverse[t] * mean);
      if (r.u.empty()) continue;
      g.du[i] = kCoefficient * r.scale[c] * g.dh[i];
      g.scale[c] += kCoefficient * g.dh[i] * r.u[i];
    }
  }
  return g;
}

// ---- a call of the kernels with every array there is ----

template <typename C>
struct Problem {
  explicit Problem(int64_t width) : d(width) {}
  int64_t d, tokens = kTokens;
  std::vector<float> h = random_values(tokens * d, 1, 2);
  std::vector<C> u = random_values<C>(tokens * d, 2);
  std::vector<float> scale = random_values(d, 3), gain = random_values(d, 4, 2);
  std::vector<C> dx = random_values<C>(tokens * d, 5);
  std::vector<float> dh = random_values(tokens * d, 6);
  std::vector<float> gain_grad = random_values(d, 7), scale_grad = random_values(d, 8);
  std::vector<float> h_out = std::vector<float>(tokens * d, -9), inverse_rms = h_out;
  std::vector<C> x = std::vector<C>(tokens * d, stored<C>(-9)), du = x;

  Reference reference() const {
    return {d, tokens, to_double(h), to_double(u), to_double(scale), to_double(gain)};
  }
  AddNorm<C> forward() {
    return {.d = d,
            .h = {h.data(), d},
            .u = {u.data(), d},
            .scale = scale.data(),
            .coefficient = kCoefficient,
            .h_out = {h_out.data(), d},
            .gain = gain.data(),
            .eps = float(kEps),
            .x = {x.data(), d},
            .inverse_rms = inverse_rms.data()};
  }
  // At h_out and inverse_rms, which a forward call has written.
  AddNormBackward<C> backward() {
    return {.d = d,
            .dx = {dx.data(), d},
            .h = {h_out.data(), d},
            .inverse_rms = inverse_rms.data(),
            .gain = gain.data(),
            .gain_grad = gain_grad.data(),
            .dh = {dh.data(), d},
            .first = false,
            .u = {u.data(), d},
            .scale = scale.data(),
            .coefficient = kCoefficient,
            .scale_grad = scale_grad.data(),
            .du = {du.data(), d}};
  }
};

Doubles plus(const std::vector<float>& a, const Doubles& b) {
  Doubles sum = to_double(a);
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += b[i];
  return sum;
}

class StreamTest : public KernelTest {
 protected:
  template <typename C>
  const StreamKernels<C>& stream() const {
    return GetParam().stream->template of<C>();
  }
};
INSTANTIATE_TEST_SUITE_P(, StreamTest, every_isa(), isa_name);

// Every subset of update, scale, kept stream, norm and output.
TEST_P(StreamTest, ForwardFollowsTheEquationWithAnyPartLeftOut) {
  for_both_types([&]<typename C>() {
    for (const int64_t d : kWidths) {
      for (unsigned parts = 0; parts < 32; ++parts) {
        SCOPED_TRACE("d " + std::to_string(d) + ", parts " + std::to_string(parts));
        Problem<C> p(d);
        Reference r = p.reference();
        AddNorm<C> a = p.forward();
        if (!(parts & 1)) a.u = {}, r.u.clear();
        if (!(parts & 2)) a.scale = nullptr, r.scale.assign(d, 1);
        if (!(parts & 4)) a.h_out = {};
        if (!(parts & 8)) a.gain = nullptr, r.gain.clear();
        if (!(parts & 16)) a.x = {};
        const Doubles untouched(p.tokens * d, -9);
        stream<C>().add_norm(a, 0, p.tokens);
        expect_near(p.h_out, a.h_out ? r.updated() : untouched, kFloatTolerance);
        expect_near(p.x, a.x ? r.x() : untouched, kTolerance<C>);
        if (a.x && a.gain) {
          p.inverse_rms.resize(p.tokens);
          expect_near(p.inverse_rms, r.inverse_rms(), kFloatTolerance);
        }
      }
    }
  });
}

TEST_P(StreamTest, StreamMayBeUpdatedInPlace) {
  for_both_types([&]<typename C>() {
    Problem<C> apart(333), in_place(333);
    stream<C>().add_norm(apart.forward(), 0, kTokens);
    AddNorm<C> a = in_place.forward();
    a.h_out = {in_place.h.data(), 333};
    stream<C>().add_norm(a, 0, kTokens);
    expect_same_bits(in_place.h, apart.h_out);
    expect_same_bits(in_place.x, apart.x);
  });
}

TEST_P(StreamTest, GapsBetweenRowsChangeNothing) {
  for_both_types([&]<typename C>() {
    constexpr int64_t d = 37, pitch = 50;
    Problem<C> dense(d), loose(d);
    stream<C>().add_norm(dense.forward(), 0, kTokens);
    stream<C>().add_norm_backward(dense.backward(), 0, kTokens);
    // Every row at the beginning of 50 numbers, the rest of which is NaN.
    const auto spread = [&]<typename T>(std::vector<T>& rows) {
      std::vector<T> wide(static_cast<size_t>(kTokens * pitch), stored<T>(NAN));
      for (int64_t t = 0; t < kTokens; ++t) {
        std::copy_n(rows.begin() + t * d, d, wide.begin() + t * pitch);
      }
      rows = std::move(wide);
      return Grid<T>{rows.data(), pitch};
    };
    AddNorm<C> a = loose.forward();
    AddNormBackward<C> b = loose.backward();
    loose.h_out.resize(static_cast<size_t>(kTokens * d));
    a.h = spread(loose.h), a.u = b.u = spread(loose.u), a.x = spread(loose.x);
    a.h_out = spread(loose.h_out), b.h = a.h_out;
    b.dx = spread(loose.dx), b.dh = spread(loose.dh), b.du = spread(loose.du);
    stream<C>().add_norm(a, 0, kTokens);
    stream<C>().add_norm_backward(b, 0, kTokens);
    for (auto* rows : {&dense.h_out, &dense.dh}) spread(*rows);
    for (auto* rows : {&dense.x, &dense.du}) spread(*rows);
    expect_same_bits(loose.h_out, dense.h_out);
    expect_same_bits(loose.x, dense.x);
    expect_same_bits(loose.dh, dense.dh);
    expect_same_bits(loose.du, dense.du);
    expect_same_bits(loose.gain_grad, dense.gain_grad);
  });
}

TEST_P(StreamTest, ZeroRowStaysZeroThroughTheNorm) {
  Problem<float> p(64);
  p.h.assign(p.h.size(), 0);
  AddNorm<float> a = p.forward();
  a.u = {};
  stream<float>().add_norm(a, 0, kTokens);
  expect_near(p.x, Doubles(p.x.size()), 0);
  EXPECT_NEAR(p.inverse_rms[0], 1 / std::sqrt(kEps), 0.01);
}

TEST_P(StreamTest, BackwardFollowsTheEquations) {
  for_both_types([&]<typename C>() {
    for (const int64_t d : kWidths) {
      SCOPED_TRACE("d " + std::to_string(d));
      Problem<C> p(d);
      stream<C>().add_norm(p.forward(), 0, p.tokens);
      const ReferenceGrads g = textbook_grads(p.reference(), to_double(p.dx), to_double(p.dh));
      const Doubles gain = plus(p.gain_grad, g.gain), scale = plus(p.scale_grad, g.scale);
      stream<C>().add_norm_backward(p.backward(), 0, p.tokens);
      expect_near(p.dh, g.dh, kFloatTolerance);
      expect_near(p.du, g.du, kTolerance<C>);
      expect_near(p.gain_grad, gain, kFloatTolerance);
      expect_near(p.scale_grad, scale, kFloatTolerance);
    }
  });
}

// Every subset of what came through the norm, the norm, its gradient, what dh held, the scale,
// its gradient and the update's.
TEST_P(StreamTest, BackwardDoesWithoutAnyPart) {
  constexpr int64_t d = 37;
  for_both_types([&]<typename C>() {
    for (unsigned parts = 0; parts < 128; ++parts) {
      SCOPED_TRACE("parts " + std::to_string(parts));
      Problem<C> p(d);
      stream<C>().add_norm(p.forward(), 0, p.tokens);
      Reference r = p.reference();
      AddNormBackward<C> a = p.backward();
      Doubles dx = to_double(p.dx), dh = to_double(p.dh);
      // The stream that backward sees is h_out, whatever the parts of the update.
      r.h = to_double(p.h_out);
      const Doubles u = std::exchange(r.u, {});
      if (!(parts & 1)) a.dx = {}, dx.assign(dx.size(), 0);
      if (!(parts & 2)) a.gain = nullptr, r.gain.clear();
      if (!(parts & 4)) a.gain_grad = nullptr;
      if (parts & 8) a.first = true, dh.assign(dh.size(), 0), p.dh.assign(dh.size(), NAN);
      if (!(parts & 16)) a.scale = nullptr, r.scale.assign(d, 1);
      if (!(parts & 32)) a.scale_grad = nullptr;
      if (!(parts & 64)) a.du = {};
      const ReferenceGrads g = textbook_grads(r, dx, dh);
      Doubles du(u.size(), -9), gain = to_double(p.gain_grad), scale = to_double(p.scale_grad);
      for (size_t i = 0; i < u.size(); ++i) {
        if (a.du) du[i] = kCoefficient * r.scale[i % d] * g.dh[i];
        if (a.scale_grad) scale[i % d] += kCoefficient * g.dh[i] * u[i];
      }
      if (a.gain_grad && a.gain && a.dx) gain = plus(p.gain_grad, g.gain);
      stream<C>().add_norm_backward(a, 0, p.tokens);
      expect_near(p.dh, g.dh, kFloatTolerance);
      expect_near(p.du, du, kTolerance<C>);
      expect_near(p.gain_grad, gain, kFloatTolerance);
      expect_near(p.scale_grad, scale, kFloatTolerance);
    }
  });
}

// Central differences of the reference's forward; their error is 1e-10 times the third derivative.
TEST_P(StreamTest, BackwardIsTheDerivativeOfForward) {
  for (const int64_t d : {int64_t{1}, int64_t{19}}) {
    Problem<float> p(d);
    stream<float>().add_norm(p.forward(), 0, p.tokens);
    const Doubles dx = to_double(p.dx), dh = to_double(p.dh);
    const auto objective = [&](const Reference& r) {
      const Doubles x = r.x(), stream = r.updated();
      double sum = 0;
      for (size_t i = 0; i < x.size(); ++i) sum += dx[i] * x[i] + dh[i] * stream[i];
      return sum;
    };
    const auto differences = [&](Doubles Reference::*values) {
      Reference r = p.reference();
      Doubles result;
      for (double& value : r.*values) {
        const double kept = value, step = 1e-5;
        value = kept + step;
        const double above = objective(r);
        value = kept - step;
        result.push_back((above - objective(r)) / (2 * step));
        value = kept;
      }
      return result;
    };
    const Doubles gain = plus(p.gain_grad, differences(&Reference::gain));
    const Doubles scale = plus(p.scale_grad, differences(&Reference::scale));
    stream<float>().add_norm_backward(p.backward(), 0, p.tokens);
    expect_near(p.dh, differences(&Reference::h), kFloatTolerance);
    expect_near(p.du, differences(&Reference::u), kFloatTolerance);
    expect_near(p.gain_grad, gain, kFloatTolerance);
    expect_near(p.scale_grad, scale, kFloatTolerance);
  }
}

TEST_P(StreamTest, RowDoesNotDependOnTheRangeItWasComputedIn) {
  for_both_types([&]<typename C>() {
    for (const int64_t d : kWidths) {
      SCOPED_TRACE("d " + std::to_string(d));
      Problem<C> whole(d), split(d);
      stream<C>().add_norm(whole.forward(), 0, kTokens);
      stream<C>().add_norm_backward(whole.backward(), 0, kTokens);
      for (const auto& [begin, end] : {std::pair{0, 1}, {1, 6}, {6, 6}, {6, 7}}) {
        stream<C>().add_norm(split.forward(), begin, end);
        stream<C>().add_norm_backward(split.backward(), begin, end);
      }
      expect_same_bits(split.h_out, whole.h_out);
      expect_same_bits(split.inverse_rms, whole.inverse_rms);
      expect_same_bits(split.x, whole.x);
      expect_same_bits(split.dh, whole.dh);
      expect_same_bits(split.du, whole.du);
      if (!GetParam().adds_rows_in_order) continue;
      expect_same_bits(split.gain_grad, whole.gain_grad);
      expect_same_bits(split.scale_grad, whole.scale_grad);
    }
  });
}

TEST_P(StreamTest, RowsOutsideTheRangeAreLeftAlone) {
  for_both_types([&]<typename C>() {
    const Problem<C> before(37);
    Problem<C> p = before;
    stream<C>().add_norm(p.forward(), 2, 4);
    stream<C>().add_norm_backward(p.backward(), 2, 4);
    for (const int64_t row : {0, 1, 4, 5, 6}) {
      for (int64_t i = row * 37; i < (row + 1) * 37; ++i) {
        ASSERT_EQ(p.h_out[i], -9);
        ASSERT_EQ(to_double(p.x[i]), -9);
        ASSERT_EQ(to_double(p.du[i]), -9);
        ASSERT_EQ(p.dh[i], before.dh[i]);
      }
      ASSERT_EQ(p.inverse_rms[row], -9);
    }
  });
}

}  // namespace
}  // namespace wavroute::kernels
