// The read of the routed schemes: against its formula, and its forms against each other.
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "base/philox.h"
#include "residual/router.h"

namespace wavroute {
namespace {

constexpr int64_t kWidth = 12;
constexpr double kNormEps = 1e-3, kMatchingEps = 1e-12;

at::Tensor random_values(const std::vector<int64_t>& shape, const std::string& name) {
  const Philox random(4, "values", name);
  at::Tensor values = at::empty(shape, at::kDouble);
  for (int64_t i = 0; i < values.numel(); ++i) {
    values.mutable_data_ptr<double>()[i] = random.normal(static_cast<uint64_t>(i));
  }
  return values;
}

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

RowKinds kinds_of(const at::Tensor& bank) {
  return row_kinds(kBases, kSummaries, 2, bank.options());
}

at::Tensor random_bank(at::ScalarType type = at::kDouble) {
  at::Tensor rows = random_values({5, 2, 3, kWidth}, "bank");
  rows[2].mul_(0.01);  // a detail that matching has to enlarge
  return rows.to(type);
}

// The sources that the rows of `bank` stand for, every detail matched.
std::vector<Source> sources_of(const std::vector<at::Tensor>& bank) {
  std::vector<Source> sources;
  for (size_t j = 0; j < bank.size(); ++j) {
    at::Tensor value = bank[j];
    if (kBases[j] >= 0) {
      value = value * matching_ratio(value, bank[static_cast<size_t>(kSummaries[j])], kMatchingEps);
    }
    sources.push_back({value, kBases[j]});
  }
  return sources;
}

at::Tensor mixed_rows(const at::Tensor& rows, const Router& router) {
  return mix_rows(rows, row_scalars(rows, rows.square().mean(-1), kinds_of(rows), router, kNormEps,
                                    kMatchingEps));
}

TEST(Router, MixesByTheFormula) {
  const RandomRouter random;
  const at::Tensor bank = random_bank();
  const std::vector<Source> sources = sources_of(bank.unbind(0));
  at::Tensor weights;
  const at::Tensor mixed = mix(sources, random.router, kNormEps, &weights).detach();
  const auto query = random.router.query->value.flatten();
  for (int64_t b = 0; b < 2; ++b) {
    for (int64_t t = 0; t < 3; ++t) {
      std::vector<double> exponentials;
      double sum = 0.0;
      for (const Source& source : sources) {
        double dot = 0.0, squares = 0.0;
        for (int64_t c = 0; c < kWidth; ++c) {
          const double v = source.value[b][t][c].item<double>();
          dot += query[c].item<double>() * random.router.gain->value[c].item<double>() * v;
          squares += v * v;
        }
        double logit = dot / std::sqrt(squares / kWidth + kNormEps);
        if (source.basis >= 0) logit += random.router.bias->value[source.basis].item<double>();
        exponentials.push_back(std::exp(logit));
        sum += exponentials.back();
      }
      for (int64_t c = 0; c < kWidth; ++c) {
        double expected = 0.0;
        for (size_t j = 0; j < sources.size(); ++j) {
          expected += exponentials[j] / sum * sources[j].value[b][t][c].item<double>();
        }
        EXPECT_NEAR(mixed[b][t][c].item<double>(), expected, 1e-12);
      }
      for (size_t j = 0; j < sources.size(); ++j) {
        EXPECT_NEAR(weights[static_cast<int64_t>(j)][b][t].item<double>(), exponentials[j] / sum,
                    1e-12);
      }
    }
  }
}

TEST(Router, ReadsABankAsItReadsSourcesInValueAndGradient) {
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

    // Autograd over the sources.
    std::vector<at::Tensor> leaves;
    for (const at::Tensor& row : bank.unbind(0)) {
      leaves.push_back(row.clone().set_requires_grad(true));
    }
    const at::Tensor composed = mix(sources_of(leaves), random.router, kNormEps);
    torch::autograd::backward({composed}, {grad});
    const std::vector<at::Tensor> router_gradients = random.gradients();

    // The bank, its backward written out. Gradients are added to what is there.
    const RowScalars scalars = row_scalars(bank, bank.square().mean(-1), kinds_of(bank),
                                           random.router, kNormEps, kMatchingEps);
    expect_near(mix_rows(bank, scalars), composed.detach(), "value");
    at::Tensor row_gradients = at::ones_like(bank);
    mix_rows_backward(bank, scalars, kinds_of(bank), random.router, grad, row_gradients);
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
    return mix(sources_of(scaled(scale).unbind(0)), random.router, kNormEps);
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
