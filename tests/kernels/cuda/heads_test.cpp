// The rotation of heads, and attention of a few tokens over a cache.
#include "kernels/cuda/heads.h"

#include "tests/kernels/cuda/runs.h"
#include "tests/kernels/kernel_test.h"

namespace wavroute::kernels::cuda {
namespace {

using emulator::Order;

// qkv of 2 sequences of 5 tokens, 3 query and 2 key-value heads.
template <typename C>
struct Problem {
  AttentionShape shape;
  std::vector<C> qkv;
  std::vector<float> cos, sin;
  explicit Problem(int64_t width)
      : shape{2, 5, 3, 2, width},
        qkv(random_values<C>(2 * 5 * shape.row(), 1)),
        cos(random_values(5 * width / 2, 2)),
        sin(random_values(5 * width / 2, 3)) {}

  // Heads from head `first` of a row on.
  template <typename T>
  Heads<T> heads(T* numbers, int64_t first) const {
    return {numbers + first * shape.width, shape.length * shape.row(), shape.row(), shape.width};
  }
  RotateHeads<C> rotation(const std::vector<C>& from, std::vector<C>& to, bool back) const {
    RotateHeads<C> args;
    args.shape = shape;
    args.query = heads(from.data(), 0), args.query_to = heads(to.data(), 0);
    args.key = heads(from.data(), 3), args.key_to = heads(to.data(), 3);
    if (to.data() != from.data()) {
      args.value = heads(from.data(), 5), args.value_to = heads(to.data(), 5);
    }
    args.cos = cos.data(), args.sin = sin.data();
    args.back = back;
    return args;
  }
  // By the definition: heads 0 to 4 turn.
  [[nodiscard]] std::vector<double> rotated(const std::vector<C>& x, bool back) const {
    std::vector<double> y = to_double(x);
    const int64_t w = shape.width, half = w / 2;
    for (int64_t place = 0; place < 2 * 5 * 7; ++place) {
      if (place % 7 >= 5) continue;
      const int64_t t = place / 7 % 5;
      for (int64_t c = 0; c < half; ++c) {
        const double a = to_double(x[static_cast<size_t>(place * w + c)]);
        const double b = to_double(x[static_cast<size_t>(place * w + half + c)]);
        const double cosine = cos[static_cast<size_t>(t * half + c)];
        const double sine = (back ? -1 : 1) * sin[static_cast<size_t>(t * half + c)];
        y[static_cast<size_t>(place * w + c)] = a * cosine - b * sine;
        y[static_cast<size_t>(place * w + half + c)] = b * cosine + a * sine;
      }
    }
    return y;
  }
};

TEST(RotatedHeads, TurnByTheAnglesOfTheirPositionsAndBack) {
  for_both_types([]<typename C>() {
    for (const int64_t width : {2, 6, 16, 72}) {
      run_in_order(Order::kShuffled);
      const Problem<C> p(width);
      for (const bool back : {false, true}) {
        std::vector<C> to(p.qkv.size());
        rotate_heads(p.rotation(p.qkv, to, back), nullptr);
        wait_for_runs();
        expect_near(to, p.rotated(p.qkv, back), std::is_same_v<C, float> ? 1e-6 : 4e-3);
      }
    }
  });
}

TEST(RotatedHeads, AreTheSameInPlace) {
  for_both_types([]<typename C>() {
    for (const int64_t width : {6, 16}) {
      const Problem<C> p(width);
      std::vector<C> apart(p.qkv.size()), in_place = p.qkv;
      rotate_heads(p.rotation(p.qkv, apart, false), nullptr);
      rotate_heads(p.rotation(in_place, in_place, false), nullptr);
      wait_for_runs();
      expect_same_bits(in_place, apart);
    }
  });
}

// Two sequences of unlike length, of which the longer one goes over several parts.
TEST(CachedAttention, IsTheSoftmaxOverAllPositionsUpToTheTokens) {
  for_both_types([]<typename C>() {
    for (const int64_t width : {6, 40}) {
      const AttentionShape shape{2, 3, 4, 2, width};
      constexpr int64_t kCapacity = 300;
      const std::vector<int64_t> positions = {5, 290};
      const auto query = random_values<C>(2 * 3 * 4 * width, 1, 2.0);
      const auto key = random_values<C>(2 * 2 * kCapacity * width, 2, 2.0);
      const auto value = random_values<C>(2 * 2 * kCapacity * width, 3);
      std::vector<double> expected;
      for (int64_t place = 0; place < 2 * 3 * 4; ++place) {
        const int64_t head = place % 4, t = place / 4 % 3, b = place / 12;
        const int64_t end = positions[static_cast<size_t>(b)] + t + 1;
        const auto row = [&](const std::vector<C>& of, int64_t j, int64_t c) {
          return to_double(
              of[static_cast<size_t>(((b * 2 + head / 2) * kCapacity + j) * width + c)]);
        };
        std::vector<double> weights;
        double sum = 0;
        for (int64_t j = 0; j < end; ++j) {
          double dot = 0;
          for (int64_t c = 0; c < width; ++c) {
            dot += to_double(query[static_cast<size_t>(place * width + c)]) * row(key, j, c);
          }
          weights.push_back(std::exp(dot / std::sqrt(static_cast<double>(width))));
          sum += weights.back();
        }
        for (int64_t c = 0; c < width; ++c) {
          double y = 0;
          for (int64_t j = 0; j < end; ++j) y += weights[static_cast<size_t>(j)] * row(value, j, c);
          expected.push_back(y / sum);
        }
      }
      CachedAttention<C> args;
      args.shape = shape;
      args.query = {query.data(), 3 * 4 * width, 4 * width, width};
      args.key = {key.data(), 2 * kCapacity * width, width, kCapacity * width};
      args.value = {value.data(), 2 * kCapacity * width, width, kCapacity * width};
      args.positions = positions.data();
      args.most = 293;
      std::vector<C> y(query.size());
      args.y = {y.data(), 3 * 4 * width, 4 * width, width};
      std::vector<float> scratch(static_cast<size_t>(cached_attention_floats(shape, 293)), NAN);
      args.scratch = scratch.data();
      run_in_order(emulator::Order::kShuffled);
      cached_attention(args, nullptr);
      wait_for_runs();
      expect_near(y, expected, std::is_same_v<C, float> ? 1e-5 : 4e-3);
    }
  });
}

}  // namespace
}  // namespace wavroute::kernels::cuda
