// A whole block of wav, forward and backward: every gradient against the finite difference of the
// equations of docs/method.md in double precision.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "tests/kernels/route_reference.h"

namespace wavroute::kernels {
namespace {

class RouteBlockTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(, RouteBlockTest, every_isa(), isa_name);

// A block of wav: update i = 1..8 is written to the sums and, but for the last, read by router i.
constexpr int kUpdates = 8, kReaders = 7;
constexpr int64_t kBlockTokens = 3;
constexpr float kSigns[kMostRunning][kUpdates + 1] = {
    {0, 1, 1, 1, 1, 1, 1, 1, 1}, {0, 1, -1, 1, -1, 1, -1, 1, -1}, {0, 1, 1, 1, 1, -1, -1, -1, -1}};
// The part of an update, and how many the kernels see after it.
int part_of(int update) {
  return (kSigns[1][update] < 0 ? 1 : 0) + (kSigns[2][update] < 0 ? 2 : 0);
}
int parts_after(int update) { return update == 1 ? 1 : update <= kUpdates / 2 ? 2 : 4; }
// The form of sum s: P differs from S from the second update on, Q from the second half on.
int form_of(int s, int update) {
  const int parts = parts_after(update);
  if (s == 1) return parts == 1 ? 0 : 1;
  return s == 2 && parts == 4 ? 2 : 0;
}

// Everything that a block's loss depends on, in one order, so that numbers and gradients have the
// same positions.
struct Layout {
  explicit Layout(int64_t d) : d(d) {}
  int64_t d;
  [[nodiscard]] int64_t rows() const { return kBlockTokens * d; }
  [[nodiscard]] int64_t update(int i) const { return (i - 1) * rows(); }
  [[nodiscard]] int64_t mixed(int i) const { return update(kUpdates + 1) + (i - 1) * rows(); }
  [[nodiscard]] int64_t query(int i) const { return mixed(kReaders + 1) + (i - 1) * d; }
  [[nodiscard]] int64_t gain(int i) const { return query(kReaders + 1) + (i - 1) * d; }
  [[nodiscard]] int64_t bias(int i) const { return gain(kReaders + 1) + (i - 1) * 2; }
  [[nodiscard]] int64_t peak(int i) const { return bias(kReaders + 1) + (i - 1) * kBlockTokens; }
  [[nodiscard]] int64_t size() const { return peak(kReaders + 1); }
};

Row slice(const std::vector<double>& numbers, int64_t begin, int64_t count) {
  return {numbers.begin() + begin, numbers.begin() + begin + count};
}
constexpr double kMass = 1.5;

// The loss sum x . dx over all readers + sum V . dV over the finished sums. `ratios` are filled at
// the base point and held after that.
struct BlockReference {
  Layout layout;
  std::array<bool, kMostRunning> read;
  std::vector<double> dx;                                  // [readers, tokens, d]
  std::array<std::vector<double>, kMostRunning> finished;  // [tokens, d]
  std::vector<double> ratios;

  double loss(const std::vector<double>& numbers) {
    const int64_t d = layout.d;
    const bool base = ratios.empty();
    size_t next_ratio = 0;
    double total = 0;
    for (int64_t t = 0; t < kBlockTokens; ++t) {
      std::vector<Row> sums(kMostRunning, Row(static_cast<size_t>(d)));
      for (int i = 1; i <= kUpdates; ++i) {
        const Row u = slice(numbers, layout.update(i) + t * d, d);
        for (int s = 0; s < kMostRunning; ++s) {
          for (size_t c = 0; c < u.size(); ++c) sums[s][c] += kSigns[s][i] * u[c];
        }
        if (i > kReaders) break;
        std::vector<Source> sources;
        for (int s = 0; s < kMostRunning; ++s) {
          if (!read[s]) continue;
          if (base) ratios.push_back(s == 0 ? 1.0 : matching_ratio(sums[0], sums[s]));
          const double bias = s == 0 ? 0.0 : numbers[layout.bias(i) + s - 1];
          sources.push_back({sums[s], bias, ratios[next_ratio++]});
        }
        const Reading reading = read_reference(
            sources, slice(numbers, layout.query(i), d), numbers[layout.peak(i) + t], kMass,
            slice(numbers, layout.mixed(i) + t * d, d), slice(numbers, layout.gain(i), d));
        total += dot(reading.x, slice(dx, (i - 1) * layout.rows() + t * d, d));
      }
      for (int s = 0; s < kMostRunning; ++s) {
        total += dot(sums[s], slice(finished[s], t * d, d));
      }
    }
    return total;
  }
};

// The same block by the kernels.
template <typename C>
class Block {
 public:
  Block(int64_t d, std::array<bool, kMostRunning> read)
      : layout(d),
        read(read),
        numbers(random_values(layout.size(), 31)),
        gradient(static_cast<size_t>(layout.size())),
        dx(random_values<C>(kReaders * layout.rows(), 32)) {
    for (int i = 1; i <= kUpdates; ++i) updates.push_back(rounded(layout.update(i)));
    for (int i = 1; i <= kReaders; ++i) mixtures.push_back(rounded(layout.mixed(i)));
    for (int s = 0; s < kMostRunning; ++s) {
      grads[s] = random_values(layout.rows(), 33 + static_cast<uint64_t>(s));
      finished[s] = to_double(grads[s]);
      for (auto& kept : kept_of[s]) kept.assign(kReaders * kBlockTokens, 0.0F);
    }
    h.resize(kReaders * layout.rows());
    lse.resize(kReaders * kBlockTokens);
    inverse_rms.resize(kReaders * kBlockTokens);
    rows.resize(kUpdates + 1);
  }

  [[nodiscard]] BlockReference reference() const {
    return {layout, read, to_double(dx), finished, {}};
  }

  // Update i, and reader i after it; the rows that a reader sees are kept.
  void forward(const RunningKernels<C>& kernels, int i) {
    rows[i] = rows[i - 1];
    const int part = part_of(i);
    std::vector<float> fresh(layout.rows(), std::numeric_limits<float>::quiet_NaN());
    WriteRead<C> a;
    a.d = layout.d;
    a.write = {rows_of(updates[i - 1].data()), part, {}, rows_of(fresh.data())};
    if (!rows[i - 1][part].empty()) a.write.in = rows_of(rows[i - 1][part].data());
    a.parts = parts_of(i);
    for (int s = 0; s < kMostRunning; ++s) {
      if (!read[s]) continue;
      a.sources[a.running++] = {
          .form = form_of(s, i),
          .bias = s > 0 && i <= kReaders ? numbers[layout.bias(i) + s - 1] : 0,
          .dot = kept(s, 0, i),
          .ratio = kept(s, 1, i),
          .inverse = kept(s, 2, i)};
    }
    const std::vector<float> mass(kBlockTokens, static_cast<float>(kMass));
    a.query = &numbers[layout.query(i)];
    a.gain = &numbers[layout.gain(i)];
    a.mixed = rows_of(mixtures[i - 1].data());
    a.peak = &numbers[layout.peak(i)];
    a.mass = mass.data();
    a.norm_eps = static_cast<float>(kNormEps);
    a.matching_eps = static_cast<float>(kMatchingEps);
    a.h = rows_of(&h[(i - 1) * layout.rows()]);
    a.lse = &lse[(i - 1) * kBlockTokens];
    a.inverse_rms = &inverse_rms[(i - 1) * kBlockTokens];
    kernels.write_read(a, 0, kBlockTokens);
    rows[i][part] = std::move(fresh);
  }

  // Reader i.
  void backward(const RunningKernels<C>& kernels, int i) {
    std::vector<C> dh(layout.rows()), du(layout.rows());
    std::vector<float> along(kBlockTokens);
    ReadBackward<C> a;
    a.d = layout.d;
    a.dx = rows_of(&dx[(i - 1) * layout.rows()]);
    a.h = rows_of(&h[(i - 1) * layout.rows()]);
    a.inverse_rms = &inverse_rms[(i - 1) * kBlockTokens];
    a.gain = &numbers[layout.gain(i)];
    a.gain_grad = &gradient[layout.gain(i)];
    a.parts = parts_of(i);
    for (int s = 0; s < kMostRunning; ++s) {
      const int form = form_of(s, i);
      if (form == s) {
        a.forms[form].grad = rows_of(grads[s].data());
        a.forms[form].sign = kSigns[s][i];
      } else if (i == kReaders || form_of(s, i + 1) == s) {
        a.forms[form].joined = rows_of(grads[s].data());
      }
      if (!read[s]) continue;
      a.sources[a.running++] = {.form = form,
                                .bias = s > 0 ? numbers[layout.bias(i) + s - 1] : 0,
                                .dot = kept(s, 0, i),
                                .ratio = kept(s, 1, i),
                                .inverse = kept(s, 2, i),
                                .bias_grad = s > 0 ? &gradient[layout.bias(i) + s - 1] : nullptr};
    }
    a.query = &numbers[layout.query(i)];
    a.lse = &lse[(i - 1) * kBlockTokens];
    a.query_grad = &gradient[layout.query(i)];
    a.dh = rows_of(dh.data());
    a.along = along.data();
    a.du = rows_of(du.data());
    kernels.read_backward(a, 0, kBlockTokens);
    for (int64_t j = 0; j < layout.rows(); ++j) {
      gradient[layout.update(i) + j] = static_cast<float>(to_double(du[j]));
    }
    give_finished(i, dh, along);
  }

  // du of the last update: nothing reads between it and the end of the block.
  void backward_of_last_update() {
    for (int64_t j = 0; j < layout.rows(); ++j) {
      for (int s = 0; s < kMostRunning; ++s) {
        gradient[layout.update(kUpdates) + j] += kSigns[s][kUpdates] * grads[s][j];
      }
    }
  }

  Layout layout;
  std::array<bool, kMostRunning> read;
  std::vector<float> numbers, gradient;

 private:
  template <typename T>
  [[nodiscard]] Grid<T> rows_of(T* first) const {
    return {first, layout.d};
  }
  // After update i.
  [[nodiscard]] Parts parts_of(int i) const {
    Parts parts;
    parts.count = parts_after(i);
    for (int k = 0; k < parts.count; ++k) {
      if (!rows[i][k].empty()) parts.rows[k] = rows_of(rows[i][k].data());
    }
    return parts;
  }
  // A tensor of the numbers in C, which are rounded to it.
  std::vector<C> rounded(int64_t first) {
    std::vector<C> result;
    for (int64_t j = first; j < first + layout.rows(); ++j) {
      result.push_back(stored<C>(numbers[j]));
      numbers[j] = static_cast<float>(to_double(result.back()));
    }
    return result;
  }
  float* kept(int s, int which, int i) { return &kept_of[s][which][(i - 1) * kBlockTokens]; }

  // Gradients of phase 1's results, which reach it through dh and `along`:
  // h = sum_j a_j v_j with a_j proportional to e^peak for all finished sources.
  void give_finished(int i, const std::vector<C>& dh, const std::vector<float>& along) {
    for (int64_t t = 0; t < kBlockTokens; ++t) {
      const double weight = std::exp(numbers[layout.peak(i) + t] - lse[(i - 1) * kBlockTokens + t]);
      double product = 0;
      for (int64_t c = t * layout.d; c < (t + 1) * layout.d; ++c) {
        gradient[layout.mixed(i) + c] = static_cast<float>(weight * to_double(dh[c]));
        product += to_double(dh[c]) * numbers[layout.mixed(i) + c];
      }
      gradient[layout.peak(i) + t] = static_cast<float>(weight * (product - kMass * along[t]));
    }
  }

  std::vector<std::vector<C>> updates, mixtures;
  std::vector<std::array<std::vector<float>, kMostParts>> rows;  // of the parts, after each update
  std::vector<C> dx, h;
  std::array<std::vector<float>, kMostRunning> grads;
  std::array<std::vector<double>, kMostRunning> finished;
  std::array<std::array<std::vector<float>, 3>, kMostRunning> kept_of;
  std::vector<float> lse, inverse_rms;
};

TEST_P(RouteBlockTest, EveryGradientOfABlockIsItsFiniteDifference) {
  for_both_types([&]<typename C>() {
    const RunningKernels<C>& kernels = GetParam().running->of<C>();
    for (const int64_t d : {5, 16, 37}) {
      for (const auto& read :
           {std::array{true, true, true}, {true, false, true}, {true, false, false}}) {
        SCOPED_TRACE(testing::Message() << "d " << d << ", details " << read[1] << read[2]);
        Block<C> block(d, read);
        for (int i = 1; i <= kReaders; ++i) block.forward(kernels, i);
        block.backward_of_last_update();
        for (int i = kReaders; i >= 1; --i) block.backward(kernels, i);

        BlockReference reference = block.reference();
        std::vector<double> numbers = to_double(block.numbers);
        reference.loss(numbers);
        const Layout& at = block.layout;
        const std::array groups = {at.update(1), at.mixed(1), at.query(1), at.gain(1),
                                   at.bias(1),   at.peak(1),  at.size()};
        // Each kind of number is compared on its own scale. All numbers for the smallest d, a part
        // of them for the others.
        for (size_t group = 0; group + 1 < groups.size(); ++group) {
          SCOPED_TRACE(testing::Message() << "group " << group);
          std::vector<double> expected;
          std::vector<float> actual;
          const int64_t stride = d == 5 || groups[group + 1] - groups[group] < 30 ? 1 : 11;
          for (int64_t j = groups[group]; j < groups[group + 1]; j += stride) {
            const double base = numbers[j], step = 1e-5;
            numbers[j] = base + step;
            const double above = reference.loss(numbers);
            numbers[j] = base - step;
            const double below = reference.loss(numbers);
            numbers[j] = base;
            expected.push_back((above - below) / (2 * step));
            actual.push_back(block.gradient[j]);
          }
          expect_near(actual, expected, kGradTolerance<C>);
        }
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  });
}

}  // namespace
}  // namespace wavroute::kernels
