// The read of the routed schemes: against its formula, and its forms against each other.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <optional>

#include "functional/composed.h"
#include "ops/backend.h"
#include "residual/router.h"
#include "tests/random_values.h"

namespace wavroute {
namespace {

constexpr int64_t kWidth = 12;
constexpr double kNormEps = 1e-3, kMatchingEps = 1e-12;

using testing::random_values;

// A router of two detail bases with random parameters.
struct RandomRouter {
  ParameterTable table;
  Router router;

  explicit RandomRouter(at::ScalarType type = at::kDouble) {
    const Init random{0.0, 1.0};
    router = {&table.declare("query", {1, kWidth}, Decay::kNo, random),
              &table.declare("gain", {kWidth}, Decay::kNo, random),
              &table.declare("bias", {2}, Decay::kNo, random)};
    table.allocate(type, type, at::kCPU, 1);
  }
  [[nodiscard]] std::vector<at::Tensor> gradients() const {
    return {router.query->value.grad().clone(), router.gain->value.grad().clone(),
            router.bias->value.grad().clone()};
  }
};

// A bank of raw sums: e, a block of three, and a block that has a summary alone.
const std::vector<int> kBases = {-1, -1, 0, 1, -1};
const std::vector<int64_t> kSummaries = {0, 1, 1, 1, 4};

RowKinds kinds_of_bank() {
  const auto backend = ops::make_composed_backend(at::kCPU);
  return row_kinds(kBases, kSummaries, 2, *backend);
}

at::Tensor random_bank(at::ScalarType type = at::kDouble) {
  at::Tensor rows = random_values({5, 2, 3, kWidth}, "bank");
  rows[2].mul_(0.01);  // a detail that matching has to enlarge
  return rows.to(type);
}

// The read of rows [5][B,T,d] by the one composed form, phase 1 over all of them. Differentiable.
struct Read {
  at::Tensor mixed;    // h [B,T,d]
  at::Tensor weights;  // a [5,B,T]
};
Read composed_read(const std::vector<at::Tensor>& bank, const Router& router) {
  std::vector<at::Tensor> rows, ratios, inverses;
  std::vector<at::Tensor> biases;
  for (size_t j = 0; j < bank.size(); ++j) {
    rows.push_back(bank[j].flatten(0, 1));
    std::optional<at::Tensor> summary;
    if (kBases[j] >= 0) summary = bank[static_cast<size_t>(kSummaries[j])].flatten(0, 1);
    const auto [ratio, inverse] =
        functional::composed::source_scalars(rows.back(), summary, kNormEps, kMatchingEps);
    ratios.push_back(ratio);
    inverses.push_back(inverse);
    biases.push_back(kBases[j] < 0 ? at::zeros({}, bank[j].options())
                                   : router.bias->value[kBases[j]]);
  }
  const at::Tensor query = (router.query->value.view({-1}) * router.gain->value).unsqueeze(0);
  const auto [mixed, peak, mass, logits] = functional::composed::route_mix(
      rows, at::stack(ratios), at::stack(inverses), query, at::stack(biases).unsqueeze(0));
  const at::Tensor weights = (logits[0] - peak[0]).exp() / mass[0];
  return {(mixed[0] / mass[0].unsqueeze(-1)).view(bank[0].sizes()),
          weights.detach().view({5, bank[0].size(0), bank[0].size(1)})};
}

at::Tensor mixed_rows(const at::Tensor& rows, const Router& router) {
  return mix_rows(rows, row_scalars(rows, rows.square().mean(-1), kinds_of_bank(), router, kNormEps,
                                    kMatchingEps));
}

TEST(Router, MixesByTheFormula) {
  const RandomRouter random;
  const at::Tensor bank = random_bank();
  const Read read = composed_read(bank.unbind(0), random.router);
  const at::Tensor mixed = read.mixed.detach();
  const auto query = random.router.query->value.flatten();
  for (int64_t b = 0; b < 2; ++b) {
    for (int64_t t = 0; t < 3; ++t) {
      const auto value = [&](size_t j, int64_t c) {
        return bank[static_cast<int64_t>(j)][b][t][c].item<double>();
      };
      const auto power = [&](size_t j) {
        double squares = 0.0;
        for (int64_t c = 0; c < kWidth; ++c) squares += value(j, c) * value(j, c);
        return squares / kWidth;
      };
      std::vector<double> factors, exponentials;
      double sum = 0.0;
      for (size_t j = 0; j < kBases.size(); ++j) {
        const double matched =
            (power(static_cast<size_t>(kSummaries[j])) + kMatchingEps) / (power(j) + kMatchingEps);
        factors.push_back(kBases[j] < 0 ? 1.0 : std::sqrt(matched));
        double dot = 0.0;
        for (int64_t c = 0; c < kWidth; ++c) {
          dot += query[c].item<double>() * random.router.gain->value[c].item<double>() *
                 factors[j] * value(j, c);
        }
        double logit = dot / std::sqrt(factors[j] * factors[j] * power(j) + kNormEps);
        if (kBases[j] >= 0) logit += random.router.bias->value[kBases[j]].item<double>();
        exponentials.push_back(std::exp(logit));
        sum += exponentials.back();
      }
      for (int64_t c = 0; c < kWidth; ++c) {
        double expected = 0.0;
        for (size_t j = 0; j < kBases.size(); ++j) {
          expected += exponentials[j] / sum * factors[j] * value(j, c);
        }
        EXPECT_NEAR(mixed[b][t][c].item<double>(), expected, 1e-12);
      }
      for (size_t j = 0; j < kBases.size(); ++j) {
        EXPECT_NEAR(read.weights[static_cast<int64_t>(j)][b][t].item<double>(),
                    exponentials[j] / sum, 1e-12);
      }
    }
  }
}

TEST(Router, ReadsABankAsTheComposedFormInValueAndGradient) {
  for (const at::ScalarType type : {at::kDouble, at::kFloat}) {
    const double tolerance = type == at::kDouble ? 1e-12 : 2e-5;
    const auto expect_near = [&](const at::Tensor& actual, const at::Tensor& expected,
                                 const std::string& what) {
      const double scale = expected.abs().max().item<double>();
      ASSERT_GT(scale, 0.0) << what;
      EXPECT_LE((actual - expected).abs().max().item<double>(), tolerance * scale) << what;
    };
    RandomRouter random(type);
    const at::Tensor bank = random_bank(type);
    const at::Tensor grad = random_values({2, 3, kWidth}, "gradient").to(type);

    std::vector<at::Tensor> leaves;
    for (const at::Tensor& row : bank.unbind(0)) {
      leaves.push_back(row.clone().set_requires_grad(true));
    }
    const at::Tensor composed = composed_read(leaves, random.router).mixed;
    torch::autograd::backward({composed}, {grad});
    const std::vector<at::Tensor> router_gradients = random.gradients();

    // The bank, its backward written out. Gradients are added to what is there.
    const RowScalars scalars = row_scalars(bank, bank.square().mean(-1), kinds_of_bank(),
                                           random.router, kNormEps, kMatchingEps);
    expect_near(mix_rows(bank, scalars), composed.detach(), "value");
    at::Tensor row_gradients = at::ones_like(bank);
    mix_rows_backward(bank, scalars, kinds_of_bank(), random.router, grad, row_gradients);
    for (int64_t j = 0; j < 5; ++j) {
      expect_near(row_gradients[j] - 1.0, leaves[static_cast<size_t>(j)].grad(),
                  "row " + std::to_string(j));
    }
    const std::vector<at::Tensor> doubled = random.gradients();
    for (size_t i = 0; i < doubled.size(); ++i) {
      expect_near(doubled[i], router_gradients[i] * 2.0, "router " + std::to_string(i));
    }
  }
}

TEST(Router, DoesNotSeeTheScaleOfABasis) {
  const RandomRouter random;
  const at::Tensor bank = random_bank();
  const at::NoGradGuard no_grad;
  const auto scaled = [&](double scale) {
    at::Tensor rows = bank.clone();
    rows[3].mul_(scale);  // a detail with a mean square near 1
    return rows;
  };
  const auto composed = [&](double scale) {
    return composed_read(scaled(scale).unbind(0), random.router).mixed;
  };
  const at::Tensor expected = composed(1.0);
  EXPECT_GT((mixed_rows(scaled(0.0), random.router) - expected).abs().max().item<double>(), 0.01);
  for (const double scale : {1e-3, 0.5, 7.0, 1e4}) {
    // 1e-12 below the mean square of the raw detail, times the slope of the softmax.
    const double tolerance = 100.0 * kMatchingEps * (1.0 + 1.0 / (scale * scale));
    EXPECT_LE((composed(scale) - expected).abs().max().item<double>(), tolerance) << scale;
    const at::Tensor rows = mixed_rows(scaled(scale), random.router);
    EXPECT_LE((rows - expected).abs().max().item<double>(), tolerance) << scale;
  }
}

}  // namespace
}  // namespace wavroute
