// Blocks, detail bases and the matching of a detail to its summary.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>

#include <cmath>

#include "functional/composed.h"
#include "residual/routed.h"
#include "tests/random_values.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

constexpr double kRounding = 1e-12;

using testing::random_values;

// [..., 1]
at::Tensor ratio_of(const at::Tensor& detail, const at::Tensor& summary) {
  const auto [ratio, inverse] = functional::composed::source_scalars(
      detail.flatten(0, -2), summary.flatten(0, -2), /*norm_eps=*/1e-6, /*matching_eps=*/1e-12);
  return ratio.view(detail.sizes().slice(0, 2)).unsqueeze(-1);
}

at::Tensor rms(const at::Tensor& v) { return v.square().mean(-1, true).sqrt(); }

TEST(Matching, GivesADetailTheRmsOfItsSummary) {
  const at::Tensor summary = random_values({2, 5, 32}, "summary") * 3.0;
  for (const double scale : {2.0, 1.0, 0.1, 1e-3, 1e-5}) {
    const at::Tensor detail = random_values({2, 5, 32}, "detail") * scale;
    const at::Tensor ratio = ratio_of(detail, summary);
    const at::Tensor apart = (rms(ratio * detail) / rms(summary) - 1.0).abs();
    const at::Tensor bound = 1e-12 / detail.square().mean(-1, true) + 1e-14;
    EXPECT_TRUE((apart <= bound).all().item<bool>()) << scale;
  }
}

TEST(Matching, BoundsTheFactorOfATinyDetail) {
  // mean S^2 = 4 and mean D^2 = 1e-14: the factor is sqrt((4 + 1e-12) / (1e-14 + 1e-12)).
  const at::Tensor summary = at::full({1, 1, 8}, 2.0, at::kDouble);
  const at::Tensor detail = at::full({1, 1, 8}, 1e-7, at::kDouble);
  const double expected = std::sqrt((4.0 + 1e-12) / 1.01e-12);
  const double ratio = ratio_of(detail, summary).item<double>();
  EXPECT_NEAR(ratio / expected, 1.0, kRounding);
  EXPECT_NEAR(ratio * 1e-7, 0.199007, 1e-6);  // a tenth of the summary's rms: 2 / sqrt(101)
}

TEST(Matching, LeavesAZeroDetailAtZero) {
  const at::Tensor summary = random_values({2, 5, 32}, "summary");
  const at::Tensor detail = at::zeros_like(summary);
  EXPECT_TRUE(at::equal(detail * ratio_of(detail, summary), detail));
}

TEST(Matching, IsHeldFixedInTheGradient) {
  at::Tensor summary = random_values({1, 2, 8}, "summary").set_requires_grad(true);
  at::Tensor detail = random_values({1, 2, 8}, "detail").set_requires_grad(true);
  const at::AutoGradMode with_grad(true);
  EXPECT_FALSE(ratio_of(detail, summary).requires_grad());
}

// The coefficients of a full block of `length` sublayers, the n-th of its model.
std::vector<double> coefficients(const DetailBasis& basis, int64_t length, int64_t block) {
  std::vector<double> signs;
  for (int64_t i = 0; i < length; ++i) {
    const int64_t sublayer = block * length + i;
    const Site site{sublayer / 2, sublayer % 2 == 0 ? SublayerKind::kAttention : SublayerKind::kMlp,
                    sublayer / 2};
    signs.push_back(basis.sign(site, i, length));
  }
  return signs;
}

double product(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0.0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

TEST(Bases, AreZeroSumForEvenBlocks) {
  for (int64_t length = 2; length <= 24; length += 2) {
    for (const int64_t block : {0, 1, 2}) {
      const std::vector<double> ones(static_cast<size_t>(length), 1.0);
      EXPECT_EQ(product(coefficients(phase_basis(), length, block), ones), 0.0) << length;
      EXPECT_EQ(product(coefficients(split_basis(), length, block), ones), 0.0) << length;
    }
  }
}

TEST(Bases, AreOrthogonalWhereTheLengthIsAMultipleOfFourAlone) {
  for (int64_t length = 1; length <= 24; ++length) {
    const std::vector<double> ones(static_cast<size_t>(length), 1.0);
    const auto phase = coefficients(phase_basis(), length, 0);
    const auto split = coefficients(split_basis(), length, 0);
    const bool orthogonal =
        product(ones, phase) == 0.0 && product(ones, split) == 0.0 && product(phase, split) == 0.0;
    EXPECT_EQ(orthogonal, length % 4 == 0) << length;
  }
}

TEST(Bases, HaveTheSignsOfTheMethod) {
  EXPECT_EQ(coefficients(phase_basis(), 4, 1), (std::vector<double>{1, -1, 1, -1}));
  EXPECT_EQ(coefficients(split_basis(), 6, 1), (std::vector<double>{1, 1, 1, -1, -1, -1}));
}

TEST(Blocks, DefaultToFourEightAndSixteenSublayersAtTwelveTwentyfourAndFortyeightLayers) {
  for (const auto& [layers, length] : {std::pair<int64_t, int64_t>{12, 4}, {24, 8}, {48, 16}}) {
    const Blocks blocks = default_blocks({layers, 64});
    EXPECT_EQ(blocks.length, length);
    EXPECT_EQ(blocks.count, 6);
  }
}

TEST(Blocks, DefaultToTheLargestCountThatDivides) {
  for (int64_t layers = 1; layers <= 64; ++layers) {
    const int64_t m = 2 * layers;
    const Blocks blocks = default_blocks({layers, 64});
    EXPECT_EQ(blocks.count * blocks.length, m);
    EXPECT_LE(blocks.count, 6);
    const auto has = [&](int64_t count, int64_t divisor) {
      return m % count == 0 && (m / count) % divisor == 0;
    };
    bool any_of_four = false;
    for (int64_t count = 1; count <= 6; ++count) any_of_four = any_of_four || has(count, 4);
    const int64_t divisor = any_of_four ? 4 : 2;
    EXPECT_TRUE(has(blocks.count, divisor)) << layers;
    for (int64_t more = blocks.count + 1; more <= 6; ++more) {
      EXPECT_FALSE(has(more, divisor)) << layers;
    }
  }
}

TEST(Blocks, MayHaveAShortLastOne) {
  const Blocks blocks = resolve_blocks(int64_t{3}, {5, 64}, /*even_length=*/true);
  EXPECT_EQ(blocks.length, 4);
  EXPECT_EQ(blocks.length_of(0), 4);
  EXPECT_EQ(blocks.length_of(1), 4);
  EXPECT_EQ(blocks.length_of(2), 2);
  EXPECT_EQ(blocks.block_of(8), 2);
  EXPECT_EQ(blocks.position_of(9), 1);
}

// The message of the error, hint included; empty where there is none.
std::string refusal(int64_t count, bool even_length) {
  try {
    static_cast<void>(resolve_blocks(count, {5, 64}, even_length));  // 10 sublayers
  } catch (const UserError& error) {
    return std::string(error.what()) + " | " + error.hint();
  }
  return "";
}

TEST(Blocks, RefuseACountThatCannotBeAndNameTheNearest) {
  using ::testing::EndsWith;
  // 10 sublayers: 1 x 10, 2 x 5, 3 x 4 (short), 4 x 3 (short), 5 x 2, 10 x 1.
  EXPECT_THAT(refusal(7, false), EndsWith(": 5, 10"));
  EXPECT_THAT(refusal(0, false), EndsWith(": 1"));
  EXPECT_THAT(refusal(-3, false), EndsWith(": 1"));
  EXPECT_THAT(refusal(11, false), EndsWith(": 10"));
  EXPECT_THAT(refusal(4, true), EndsWith(": 3, 5"));
  EXPECT_THAT(refusal(2, true), EndsWith(": 1, 3"));
  EXPECT_THAT(refusal(10, true), EndsWith(": 5"));
  for (const int64_t valid : {1, 2, 3, 4, 5, 10}) EXPECT_EQ(refusal(valid, false), "");
  for (const int64_t valid : {1, 3, 5}) EXPECT_EQ(refusal(valid, true), "");
}

}  // namespace
}  // namespace wavroute
