// mHC-lite: its coefficients, seen through the states of its stream.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>

#include "tests/model/small_model.h"

namespace wavroute {
namespace {

using namespace wavroute::testing;

constexpr double kRounding = 1e-12;  // of float64, at values near 1
constexpr int64_t kWidth = 16;

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

at::Tensor random_rows(const std::vector<int64_t>& shape, const char* name) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return (random_tokens(1, count, name).to(at::kDouble) / 8.0 - 1.0).view(shape);
}

// The coefficients that a sublayer makes of the streams x [1,T,n,d], per token.
struct Coefficients {
  at::Tensor read;   // H_pre [T,n]
  at::Tensor write;  // H_post [T,n]
  at::Tensor carry;  // H_res [T,n,n]
};

// A read is linear in x and a write in x and u where the logits are held: they are solved for. x
// has more columns than rows, and no row depends on the others.
Coefficients coefficients_of(const Decoder& model, const Site& site, const at::Tensor& x) {
  const at::NoGradGuard no_grad;
  const at::Tensor inverse = at::linalg_pinv(x[0]);  // [T,d,n]
  const auto after = [&](const at::Tensor& update, at::Tensor* read) {
    const auto stream = model.residual().open(on_backend(model.backend()));
    stream->begin(x.select(2, 0));
    stream->restore({x});
    const at::Tensor h = stream->read(site);
    if (read != nullptr) *read = h;
    stream->write(site, update);
    return stream->snapshot()[0][0];  // [T,n,d]
  };
  const at::Tensor ones = at::ones_like(x.select(2, 0));
  at::Tensor h;
  const at::Tensor carried = after(at::zeros_like(ones), &h);
  Coefficients result;
  result.read = at::matmul(h[0].unsqueeze(1), inverse).squeeze(1);
  result.carry = at::matmul(carried, inverse);
  result.write = (after(ones, nullptr) - carried).mean(-1);
  return result;
}

class MhcLite : public ::testing::TestWithParam<int64_t> {
 protected:
  int64_t streams_ = GetParam();
  DecoderSpec spec_ = small_spec("mhc_lite", {{"streams", streams_}});
  at::Tensor x_ = random_rows({1, 7, streams_, kWidth}, "streams");
};

INSTANTIATE_TEST_SUITE_P(Streams, MhcLite, ::testing::Values(2, 3, 4, 5));

TEST_P(MhcLite, StartsByReadingAndWritingOneStreamMoreThanTheOthersInTurn) {
  const auto model = fresh_model(spec_);
  for (int64_t l = 0; l < 8; ++l) {
    const Coefficients fresh = coefficients_of(*model, Site::at(l), x_);
    for (int64_t r = 0; r < streams_; ++r) {
      const double share = sigmoid(r == l % streams_ ? 1.0 : -1.0);  // 0.731 or 0.269
      EXPECT_LE((fresh.read.select(1, r) - share).abs().max().item<double>(), kRounding);
      EXPECT_LE((fresh.write.select(1, r) - 2.0 * share).abs().max().item<double>(), kRounding);
    }
  }
}

TEST_P(MhcLite, StartsByCarryingTheStreamsNearlyAsTheyAre) {
  const auto model = fresh_model(spec_);
  // Every permutation but the identity has the weight e^-8 / (1 + (n! - 1) e^-8).
  double count = 1.0;
  for (int64_t r = 2; r <= streams_; ++r) count *= static_cast<double>(r);
  const double each = std::exp(-8.0) / (1.0 + (count - 1.0) * std::exp(-8.0));
  // One in n of all permutations takes stream c to r.
  const double moved = count / static_cast<double>(streams_) * each;
  const double stays = 1.0 - moved * static_cast<double>(streams_ - 1);
  const at::Tensor expected =
      at::full({streams_, streams_}, moved, at::kDouble).fill_diagonal_(stays);
  for (int64_t l = 0; l < 8; ++l) {
    const at::Tensor carry = coefficients_of(*model, Site::at(l), x_).carry;
    EXPECT_LE((carry - expected).abs().max().item<double>(), kRounding);
  }
}

TEST_P(MhcLite, CarriesByADoublyStochasticMatrixWhateverItsParametersAre) {
  const auto model = scattered_model(spec_);
  double spread = 0.0;
  for (int64_t l = 0; l < 8; ++l) {
    const at::Tensor carry = coefficients_of(*model, Site::at(l), x_).carry;
    EXPECT_LE((carry.sum(1) - 1.0).abs().max().item<double>(), kRounding);
    EXPECT_LE((carry.sum(2) - 1.0).abs().max().item<double>(), kRounding);
    EXPECT_GE(carry.min().item<double>(), -kRounding);
    spread = std::max(spread, carry.std(0).max().item<double>());
  }
  EXPECT_GT(spread, 1e-3);  // each token has its own
}

TEST_P(MhcLite, ListsThePermutationsInLexicographicOrderByTheStreamThatARowTakes) {
  std::vector<int64_t> taken(static_cast<size_t>(streams_));
  for (size_t r = 0; r < taken.size(); ++r) taken[r] = static_cast<int64_t>(r);
  int64_t k = 0;
  do {
    const auto model = fresh_model(spec_);
    const at::NoGradGuard no_grad;
    for (Parameter& parameter : model->parameters().parameters()) {
      if (!parameter.slices[0].name.ends_with("self_attn_hc_res.bias")) continue;
      parameter.value.fill_(-60.0);
      parameter.value[k] = 0.0;
    }
    const at::Tensor carry = coefficients_of(*model, Site::at(2), x_).carry;
    for (int64_t r = 0; r < streams_; ++r) {
      const at::Tensor to = carry.select(1, r).select(1, taken[static_cast<size_t>(r)]);
      EXPECT_LE((to - 1.0).abs().max().item<double>(), kRounding) << k << " " << r;
    }
    ++k;
  } while (std::ranges::next_permutation(taken).found);
}

TEST_P(MhcLite, ThatReadsEvenlyAndAddsUpdatesToEveryStreamIsPrenorm) {
  const auto even = [](DecoderSpec spec) {
    spec.model.rms_norm_eps = 0.0;  // the read-out is n times larger
    return spec;
  };
  const auto model = scattered_model(even(spec_)),
             plain = scattered_model(even(small_spec("prenorm")));
  for (const char* name : {"_hc_pre.weight", "_hc_post.weight", "_hc_post.bias"}) {
    set_values(*model, name, 0.0);
  }
  set_values(*model, "_hc_pre.bias", -std::log(static_cast<double>(streams_ - 1)));  // 1 / n
  const PassRecord actual = record_pass(*model, training());
  const PassRecord expected = record_pass(*plain, training());
  EXPECT_LE(difference(actual.logits, expected.logits), kRounding);
  for (const auto& [name, gradient] : expected.gradients) {
    EXPECT_LE(difference(actual.gradients.at(name), gradient), kRounding) << name;
  }
}

TEST(MhcLiteCost, CountsTheProductsWithItsStreams) {
  const auto model = fresh_model(small_spec("mhc_lite"));
  // Per sublayer: 64 channels to 4 + 4 + 24 logits; read 4 d, carry 16 d, write 4 d.
  EXPECT_EQ(model->residual().flops_per_token(), 8 * 2.0 * (64 * 32 + (4 + 16 + 4) * 16));
}

}  // namespace
}  // namespace wavroute
