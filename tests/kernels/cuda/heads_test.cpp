// The rotation of heads.
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

}  // namespace
}  // namespace wavroute::kernels::cuda
