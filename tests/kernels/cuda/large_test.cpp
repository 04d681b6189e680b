// Rows beyond what 32 bits can number. A GPU takes 2^24 rows of 64 numbers and 2^15 of 8192; the
// emulator a few rows that lie as far apart in memory that is mostly never touched, which the same
// arithmetic has to reach.
//
// Expected are the bits of the same kernel on a few of these rows alone, which lie together: small
// sizes have their own tests.
#include <cmath>
#include <numeric>

#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/heads.h"
#include "kernels/cuda/route.h"
#include "kernels/cuda/stream.h"
#include "tests/kernels/cuda/runs.h"
#include "tests/kernels/kernel_test.h"

namespace wavroute::kernels::cuda {
namespace {

#if defined(WAVROUTE_ON_GPU)
constexpr bool kOnGpu = true;
#else
constexpr bool kOnGpu = false;
#endif

struct Size {
  int64_t rows, d, pitch;
  std::vector<int64_t> compared;  // rows that have numbers
};
std::vector<Size> sizes() {
  if (!kOnGpu) {
    constexpr int64_t kApart = (int64_t{1} << 31) + 64;  // numbers: the third row is beyond 2^32
    return {{3, 64, kApart, {0, 1, 2}}};
  }
  std::vector<Size> sizes;
  for (const auto& [rows, d] : {std::pair{int64_t{1} << 24, int64_t{64}}, {1 << 15, 8192}}) {
    sizes.push_back({rows, d, d, {0, 1, rows / 2 - 1, rows / 2, rows - 2, rows - 1}});
  }
  return sizes;
}

// Rows of `width` numbers at a distance, of which some are random; and these alone.
template <typename T>
class Rows {
 public:
  Rows(const Size& size, int64_t width, uint64_t seed)
      : compared_(size.compared),
        pitch_(std::max(size.pitch, width)),
        bytes_(sizeof(T) * static_cast<size_t>((size.rows - 1) * pitch_ + width)),
        width_(width),
        all_(static_cast<T*>(large_zeros(bytes_))),
        few_(random_values<T>(std::ssize(compared_) * width, seed)) {
    for (size_t i = 0; i < compared_.size(); ++i) {
      std::copy_n(few_.data() + static_cast<int64_t>(i) * width, width,
                  all_ + compared_[i] * pitch_);
    }
  }
  Rows(const Rows&) = delete;
  Rows& operator=(const Rows&) = delete;
  ~Rows() { free_zeros(all_, bytes_); }

  [[nodiscard]] Grid<T> all() const { return {all_, pitch_}; }
  [[nodiscard]] Grid<T> few() { return {few_.data(), width_}; }
  void expect_equal(const char* what) {
    for (size_t i = 0; i < compared_.size(); ++i) {
      for (int64_t c = 0; c < width_; ++c) {
        const double actual = to_double(all_[compared_[i] * pitch_ + c]);
        const double expected =
            to_double(few_[i * static_cast<size_t>(width_) + static_cast<size_t>(c)]);
        ASSERT_EQ(actual, expected) << what << ", row " << compared_[i] << ", column " << c;
      }
    }
  }

 private:
  std::vector<int64_t> compared_;
  int64_t pitch_;
  size_t bytes_;
  int64_t width_;
  T* all_;
  std::vector<T> few_;
};

TEST(LargeRows, AreAddedNormedAndGetTheirGradients) {
  for (const Size& size : sizes()) {
    const auto few = std::ssize(size.compared);
    const auto gain = random_values(size.d, 1);
    Rows<float> h(size, size.d, 2), dh(size, size.d, 3);
    Rows<Bf16> u(size, size.d, 4), x(size, size.d, 5), du(size, size.d, 6);
    std::vector<float> numbers(static_cast<size_t>(size.rows)), few_numbers(size.compared.size());
    std::vector<float> gain_grad(gain.size()), few_gain_grad(gain.size());
    const auto work = [&](const Grid<float>& h_rows, const Grid<Bf16>& u_rows,
                          const Grid<Bf16>& x_rows, const Grid<float>& dh_rows,
                          const Grid<Bf16>& du_rows, std::vector<float>& inverse_rms,
                          std::vector<float>& grad, int64_t rows) {
      AddNorm<Bf16> forward;
      forward.d = size.d, forward.h = h_rows, forward.u = u_rows, forward.h_out = h_rows;
      forward.gain = gain.data(), forward.eps = 1e-6F, forward.x = x_rows;
      forward.inverse_rms = inverse_rms.data();
      add_norm(forward, rows, nullptr);
      AddNormBackward<Bf16> backward;
      backward.d = size.d, backward.dx = u_rows, backward.h = h_rows;
      backward.inverse_rms = inverse_rms.data(), backward.gain = gain.data();
      backward.gain_grad = grad.data(), backward.dh = dh_rows, backward.du = du_rows;
      std::vector<float> scratch(static_cast<size_t>(2 * partial_sums(rows) * size.d));
      add_norm_backward(backward, rows, scratch.data(), nullptr);
      wait_for_runs();
    };
    work(h.all(), u.all(), x.all(), dh.all(), du.all(), numbers, gain_grad, size.rows);
    work(h.few(), u.few(), x.few(), dh.few(), du.few(), few_numbers, few_gain_grad, few);
    h.expect_equal("h");
    x.expect_equal("x");
    dh.expect_equal("dh");
    du.expect_equal("du");
    // The other rows are zeros: the order of the sum is another one.
    expect_near(gain_grad, to_double(few_gain_grad), 1e-6);
  }
}

TEST(LargeRows, AreMixedAndRead) {
  for (const Size& size : sizes()) {
    constexpr int64_t kSources = 2;
    const auto few = std::ssize(size.compared);
    const auto query = random_values(size.d, 1), gain = random_values(size.d, 2);
    const auto bias = random_values(kSources, 3);
    const float no_bias = 0.0F;
    Rows<Bf16> first(size, size.d, 4), second(size, size.d, 5), mixed(size, size.d, 6),
        x(size, size.d, 7);
    Rows<float> grad(size, size.d, 8);
    const auto work = [&](const Grid<Bf16>& a, const Grid<Bf16>& b, const Grid<Bf16>& mixed_rows,
                          const Grid<Bf16>& x_rows, const Grid<float>& grads, int64_t rows) {
      const std::vector<float> ones(static_cast<size_t>(rows), 1.0F);
      std::vector<float> per_token(static_cast<size_t>(rows * (kSources + 4)));
      float *const logits = per_token.data(), *const peak = logits + kSources * rows,
                   *const mass = peak + rows, *const lse = mass + rows, *const along = lse + rows;
      const std::vector<Grid<const Bf16>> sources = {a, b};
      const std::vector<const float*> scalars(kSources, ones.data());
      MixFinished<Bf16, Bf16> mix_args;
      mix_args.d = size.d, mix_args.sources = kSources, mix_args.routers = 1;
      mix_args.rows = sources.data(), mix_args.ratio = scalars.data();
      mix_args.inverse = scalars.data();
      mix_args.query = {query.data(), size.d}, mix_args.bias = {bias.data(), kSources};
      mix_args.logits = {logits, kSources * rows, rows};
      mix_args.peak = {peak, rows}, mix_args.mass = {mass, rows};
      mix_args.mixed = {mixed_rows.at, 0, mixed_rows.pitch};
      mix(mix_args, rows, nullptr);
      WriteRead<Bf16> read;
      read.d = size.d, read.query = query.data(), read.peak = peak, read.mass = mass;
      read.mixed = mixed_rows, read.norm_eps = 1e-6F, read.lse = lse, read.gain = gain.data();
      read.x = x_rows;
      write_read(read, &no_bias, rows, nullptr);
      // Of the first source alone: the gradients of a read are x.
      std::vector<float> query_grad(query.size()), bias_grad(kSources),
          scratch(static_cast<size_t>(mix_backward_floats(rows, size.d, 1, kSources)));
      const std::vector<Grid<float>> grad_rows = {grads, grads};
      const bool is_first[kSources] = {true, false};
      MixFinishedBackward<Bf16, Bf16> back;
      back.d = size.d, back.sources = kSources, back.routers = 1;
      back.rows = sources.data(), back.ratio = scalars.data(), back.inverse = scalars.data();
      back.query = mix_args.query, back.bias = mix_args.bias;
      back.logits = {logits, kSources * rows, rows};
      back.lse = {lse, rows}, back.along = {along, rows};
      back.dh = {x_rows.at, 0, x_rows.pitch};
      back.grads = grad_rows.data(), back.first = is_first;
      back.query_grad = {query_grad.data(), size.d}, back.bias_grad = {bias_grad.data(), kSources};
      mix_backward(back, rows, scratch.data(), nullptr);
      wait_for_runs();
    };
    work(first.all(), second.all(), mixed.all(), x.all(), grad.all(), size.rows);
    work(first.few(), second.few(), mixed.few(), x.few(), grad.few(), few);
    mixed.expect_equal("mixed");
    x.expect_equal("x");
    grad.expect_equal("the sources' gradients");
  }
}

TEST(LargeRows, GoThroughSwigluAndCrossEntropy) {
  for (const Size& size : sizes()) {
    const auto few = std::ssize(size.compared);
    Rows<Bf16> gate_up(size, 2 * size.d, 1), a(size, size.d, 2), logits(size, size.d, 3);
    const auto work = [&](const Grid<Bf16>& gates, const Grid<Bf16>& out, const Grid<Bf16>& rows,
                          int64_t count) {
      swiglu<Bf16>({size.d, gates, out}, count, nullptr);
      swiglu_backward<Bf16>({size.d, gates, out}, count, nullptr);
      const std::vector<int64_t> targets(static_cast<size_t>(count), 7);
      std::vector<float> loss(static_cast<size_t>(count));
      CrossEntropy<Bf16> args;
      args.vocabulary = size.d, args.logits = rows, args.targets = targets.data();
      args.want_grad = true, args.weight = 1.0F, args.loss = loss.data();
      cross_entropy(args, count, nullptr);
      wait_for_runs();
    };
    work(gate_up.all(), a.all(), logits.all(), size.rows);
    work(gate_up.few(), a.few(), logits.few(), few);
    gate_up.expect_equal("the gradient of gate and up");
    a.expect_equal("a");
    logits.expect_equal("the gradient of the logits");
  }
}

// A cache whose sequences lie far apart; on both, because a sequence is a matter of strides.
TEST(LargeRows, HoldTheKeysAndValuesOfACache) {
  const Size size{3, 64, (int64_t{1} << 31) + 64, {0, 2}};
  Rows<Bf16> keys(size, 2 * 64, 1), values(size, 2 * 64, 2);
  const auto queries = random_values<Bf16>(3 * 64, 3);
  const std::vector<int64_t> positions = {1, 1, 1};
  const auto attend = [&](const Grid<Bf16>& k, const Grid<Bf16>& v, int64_t batch,
                          int64_t query_step) {
    CachedAttention<Bf16> args;
    args.shape = {batch, 1, 1, 1, 64};
    args.query = {queries.data(), query_step * 64, 64, 64};
    args.key = {k.at, k.pitch, 64, 64}, args.value = {v.at, v.pitch, 64, 64};
    args.positions = positions.data(), args.most = 2;
    std::vector<Bf16> y(static_cast<size_t>(batch * 64));
    std::vector<float> scratch(static_cast<size_t>(cached_attention_floats(args.shape, 2)));
    args.y = {y.data(), 64, 64, 64}, args.scratch = scratch.data();
    cached_attention(args, nullptr);
    wait_for_runs();
    return to_double(y);
  };
  const auto all = attend(keys.all(), values.all(), 3, 1);
  const auto few = attend(keys.few(), values.few(), 2, 2);
  for (size_t c = 0; c < 64; ++c) {
    EXPECT_EQ(all[c], few[c]);
    EXPECT_EQ(all[2 * 64 + c], few[64 + c]);
  }
}

TEST(LargeBuffers, AreUpdatedAndSquared) {
  if (!kOnGpu) GTEST_SKIP() << "2^31 numbers take a GPU's memory and its speed";
  constexpr int64_t kCount = (int64_t{1} << 31) + 5;  // numbers
  const Size size{1, kCount, kCount, {}};
  Rows<float> value(size, kCount, 1), grad(size, kCount, 2), first(size, kCount, 3),
      second(size, kCount, 4);
  const std::vector<int64_t> places = {0, kCount / 2, kCount - 1};
  for (const int64_t place : places) grad.all().at[place] = 2.0F;
  std::vector<double> scratch(static_cast<size_t>(square_parts(kCount))), sum(1);
  sum_of_squares(grad.all().at, kCount, scratch.data(), sum.data(), nullptr);
  AdamwStep step;
  step.value = value.all().at, step.grad = grad.all().at;
  step.first = first.all().at, step.second = second.all().at;
  step.beta1 = 0.9F, step.beta2 = 0.95F, step.eps = 1e-8F;
  std::vector<AdamwScalars> scalars(1);
  scalars[0] = {0.5F, 0.1F, 0.05F, 1.0F, 1};
  adamw(step, scalars.data(), kCount, nullptr);
  wait_for_runs();
  EXPECT_EQ(sum[0], 4.0 * static_cast<double>(places.size()));
  for (const int64_t place : places) {
    EXPECT_NEAR(value.all().at[place], -0.5F, 1e-5F) << place;  // the first step is lr
    EXPECT_EQ(grad.all().at[place], 0.0F);
  }
  EXPECT_EQ(value.all().at[kCount / 2 + 1], 0.0F);
}

}  // namespace
}  // namespace wavroute::kernels::cuda
