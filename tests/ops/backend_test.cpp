// Every operator of a back end on our kernels against the composed one, which shares no kernel with
// it.
#include "ops/backend.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>

#include <cmath>

#include "ops/rope.h"
#include "tests/ops/tested_backend.h"

namespace wavroute::ops {
namespace {

constexpr int64_t kTokens = 2 * 17, kWidth = 48, kHidden = 72, kVocabulary = 29;

at::Tensor random_values(at::IntArrayRef sizes, at::ScalarType type = at::kFloat) {
  return at::randn(sizes, at::TensorOptions().dtype(at::kFloat)).to(type).to(tested_device());
}
at::TensorOptions table_options() {
  return at::TensorOptions().dtype(at::kFloat).device(tested_device());
}
at::Tensor on_device(const at::Tensor& tensor) { return tensor.to(tested_device()); }
at::Tensor ones(at::IntArrayRef sizes) { return on_device(at::ones(sizes)); }
at::Tensor zeros(at::IntArrayRef sizes) { return on_device(at::zeros(sizes)); }

// Both back ends do `call`; what they give, and what they leave in the tensors that it returns, is
// the same up to rounding.
class EveryType : public ::testing::TestWithParam<at::ScalarType> {
 protected:
  EveryType() { at::manual_seed(7); }
  [[nodiscard]] static at::ScalarType type() { return GetParam(); }

  template <typename Call>
  void expect_same(const Call& call) {
    const auto tested = make_tested_backend(), composed = make_composed_backend(tested_device());
    const at::NoGradGuard no_grad;
    const std::vector<at::Tensor> actual = call(*tested), expected = call(*composed);
    ASSERT_EQ(actual.size(), expected.size());
    for (size_t i = 0; i < actual.size(); ++i) {
      ASSERT_EQ(actual[i].sizes(), expected[i].sizes()) << i;
      const at::Tensor whole = expected[i].cpu().to(at::kDouble);
      const double size = whole.norm().item<double>();
      ASSERT_GT(size, 0.0) << i;
      const double error = (actual[i].cpu().to(at::kDouble) - whole).norm().item<double>();
      EXPECT_LE(error, (type() == at::kFloat ? 1e-5 : 1e-2) * size) << i;
    }
  }
};

INSTANTIATE_TEST_SUITE_P(Types, EveryType, ::testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& info) { return std::string(c10::toString(info.param)); });

TEST_P(EveryType, ProjectsAndGivesBothGradients) {
  const at::Tensor x = random_values({kTokens, kWidth}, type()),
                   w = random_values({kHidden, kWidth}, type()),
                   du = random_values({kTokens, kHidden}, type());
  expect_same([&](Backend& backend) -> std::vector<at::Tensor> {
    at::Tensor grad = ones({kHidden, kWidth});  // added to
    backend.add_weight_grad(du, x, grad);
    return {backend.project(x, w), backend.project_backward(du, w), grad};
  });
}

TEST_P(EveryType, AddsAndNormsAndGivesTheirGradients) {
  const at::Tensor h = random_values({2, 17, kWidth}), gain = random_values({kWidth}),
                   later = random_values({2, 17, kWidth}),
                   u = random_values({2, 17, kWidth}, type()),
                   dx = random_values({2, 17, kWidth}, type());
  for (const int64_t scales : {int64_t{0}, int64_t{1}, kWidth}) {
    const at::Tensor scale = scales == 0 ? at::Tensor() : random_values({scales});
    for (const bool norms : {true, false}) {
      for (const bool first : {true, false}) {
        expect_same([&](Backend& backend) -> std::vector<at::Tensor> {
          const Norm norm{norms ? gain : at::Tensor(), 1e-3, norms ? ones({kWidth}) : at::Tensor()};
          Addend addend{u, scale, 0.5, {}};
          if (scales > 0) addend.scale_grad = ones({scales});
          const Normed normed = backend.add_norm(h, addend, norm, type());
          const at::Tensor dh = later.clone();
          const at::Tensor du = backend.add_norm_backward(dx, normed, norm, addend, dh, first);
          std::vector<at::Tensor> results = {normed.h, normed.x, backend.add(h, addend), dh, du};
          if (norms) results.push_back(norm.gain_grad);
          if (scales > 0) results.push_back(addend.scale_grad);
          return results;
        });
      }
    }
  }
}

TEST_P(EveryType, AttendsAndGivesTheGradient) {
  for (const int64_t kv_heads : {int64_t{1}, int64_t{3}}) {
    const kernels::AttentionShape shape = {2, 17, 3, kv_heads, 16};
    const at::Tensor qkv = random_values({2 * 17, shape.row()}, type()),
                     dy = random_values({2 * 17, 48}, type());
    const RopeTable rope = rope_table(0, 17, 16, 100.0, table_options());
    expect_same([&](Backend& backend) -> std::vector<at::Tensor> {
      const at::Tensor own = qkv.clone();  // may be rotated in place
      const Attended attended = backend.attention(own, shape, rope);
      return {attended.y, backend.attention_backward(own, attended, dy, shape, rope)};
    });
  }
}

TEST_P(EveryType, AttendsOverACache) {
  for (const int64_t first : {int64_t{1}, int64_t{5}, int64_t{12}}) {
    const RopeTable rope = rope_table(0, 20, 16, 100.0, table_options());
    const at::Tensor start = random_values({2 * first, 5 * 16}, type()),
                     next = random_values({2, 5 * 16}, type()),
                     chunk = random_values({2 * 3, 5 * 16}, type());
    expect_same([&](Backend& backend) -> std::vector<at::Tensor> {
      const at::TensorOptions options = table_options().dtype(type());
      const at::Tensor keys = at::zeros({2, 1, 20, 16}, options), values = at::zeros_like(keys);
      std::vector<at::Tensor> results;
      std::vector<int64_t> positions = {0, 0};
      const auto take = [&](const at::Tensor& qkv, int64_t length) {
        results.push_back(backend.cached_attention(qkv.clone(), {2, length, 3, 1, 16}, rope,
                                                   {keys, values, positions}));
        for (int64_t& position : positions) position += length;
      };
      take(start, first);
      positions[1] -= first / 2;  // a shorter sequence, whose last tokens are written again
      take(next, 1);
      take(chunk, 3);
      results.push_back(keys);
      results.push_back(values);
      return results;
    });
  }
}

TEST_P(EveryType, ProjectsFewTokensAndByBlocksOfQ8) {
  for (const int64_t tokens : {1, 3, 8, 21}) {
    const at::Tensor x = random_values({tokens, 64}, type()), w = random_values({70, 64}, type());
    const Q8Matrix made = quantise(w.cpu());
    const Q8Matrix blocks{on_device(made.quants), on_device(made.scales)};
    expect_same([&](Backend& backend) -> std::vector<at::Tensor> {
      return {backend.project(x, w), backend.project(x, blocks)};
    });
  }
}

TEST_P(EveryType, ProjectsToLogits) {
  for (const int64_t tokens : {1, 8, 21}) {
    const at::Tensor x = random_values({tokens, 64}, type()), w = random_values({70, 64}, type());
    const Q8Matrix blocks = quantise(w);
    expect_same([&](Backend& backend) -> std::vector<at::Tensor> {
      return {backend.project_logits(x, w), backend.project_logits(x, blocks)};
    });
  }
}

// Two logits of one bf16 number: which is larger decides a greedy token.
TEST(Logits, OfFewTokensAreNotRoundedToBf16) {
  const at::Tensor x = random_values({3, 64}, at::kBFloat16),
                   w = random_values({70, 64}, at::kBFloat16);
  const at::Tensor whole = at::mm(x.to(at::kDouble), w.to(at::kDouble).t());
  const at::Tensor by_blocks =
      at::mm(rounded_to_blocks(x).to(at::kDouble), dequantised(quantise(w)).to(at::kDouble).t());
  for (const auto& backend : {make_cpu_backend(), make_composed_backend(at::kCPU)}) {
    const auto error = [&](const at::Tensor& logits, const at::Tensor& expected) {
      EXPECT_EQ(logits.scalar_type(), at::kFloat);
      return (logits.to(at::kDouble) - expected).abs().max().item<double>();
    };
    EXPECT_LE(error(backend->project_logits(x, w), whole), 1e-5);  // 0.03 if they were
    EXPECT_LE(error(backend->project_logits(x, quantise(w)), by_blocks), 1e-5);
  }
}

TEST_P(EveryType, AddsABiasAndItsGradient) {
  const at::Tensor rows = random_values({kTokens, 100}, type()), bias = random_values({100});
  expect_same([&](Backend& backend) -> std::vector<at::Tensor> {
    const at::Tensor sum = rows.clone();
    backend.add_bias(sum, bias);
    const at::Tensor grad = ones({100});
    backend.add_bias_grad(rows, grad);
    return {sum, grad};
  });
}

TEST_P(EveryType, ABiasHasTheSameGradientWithAnyNumberOfThreads) {
  const at::Tensor rows = random_values({1000, 200}, type());
  const auto backend = make_tested_backend();
  const auto gradient = [&](int threads) {
    at::set_num_threads(threads);
    at::Tensor grad = zeros({200});
    backend->add_bias_grad(rows, grad);
    return grad;
  };
  const int before = at::get_num_threads();
  const at::Tensor one = gradient(1);
  for (const int threads : {2, 3, 7}) EXPECT_TRUE(at::equal(gradient(threads), one)) << threads;
  at::set_num_threads(before);
}

TEST_P(EveryType, GatesAndLeavesTheGradientInPlace) {
  const at::Tensor gate_up = random_values({kTokens, 2 * kHidden}, type()),
                   da = random_values({kTokens, kHidden}, type());
  expect_same([&](Backend& backend) -> std::vector<at::Tensor> {
    const at::Tensor consumed = gate_up.clone(), consumed_da = da.clone();
    const at::Tensor a = backend.swiglu(gate_up);
    backend.swiglu_backward(consumed, consumed_da);
    return {a, consumed, consumed_da};
  });
}

TEST_P(EveryType, LooksUpTokensAndScoresThem) {
  const at::Tensor table = random_values({kVocabulary, kWidth}),
                   rows = random_values({2, 17, kWidth}),
                   logits = random_values({kTokens, kVocabulary}, type());
  const at::Tensor ids = on_device(at::randint(kVocabulary, {2, 17}, at::kLong));
  at::Tensor targets = ids.flatten().clone();
  targets[3] = -100;
  expect_same([&](Backend& backend) -> std::vector<at::Tensor> {
    at::Tensor grad = at::ones_like(table);
    backend.add_rows(ids, rows, grad);
    const at::Tensor consumed = logits.clone();
    const double loss = backend.cross_entropy(consumed, targets, 0.1);
    EXPECT_EQ(consumed[3].abs().max().item<double>(), 0.0);  // not scored
    return {backend.embed(table, ids), grad, consumed, at::scalar_tensor(loss, at::kDouble)};
  });
}

TEST_P(EveryType, UpdatesParametersAlikeAndLeavesNoGradient) {
  const at::Tensor value = random_values({1000}), gradient = random_values({1000});
  expect_same([&](Backend& backend) -> std::vector<at::Tensor> {
    AdamwBuffers buffers{value.clone(), gradient.clone(), zeros({1000}), zeros({1000}), {}};
    if (type() != at::kFloat) buffers.copy = value.to(type());
    const double squares = backend.sum_of_squares(buffers.grad);
    AdamwNumbers numbers{.lr = 0.01,
                         .beta1 = 0.9,
                         .beta2 = 0.95,
                         .eps = 1e-8,
                         .weight_decay = 0.1,
                         .grad_scale = 0.5};
    for (numbers.update = 1; numbers.update <= 3; ++numbers.update) {
      backend.adamw(buffers, numbers);
      EXPECT_EQ(buffers.grad.abs().max().item<double>(), 0.0);
      buffers.grad.copy_(gradient * static_cast<double>(numbers.update));
    }
    std::vector<at::Tensor> results = {buffers.value, buffers.first, buffers.second,
                                       at::scalar_tensor(squares, at::kDouble)};
    if (buffers.copy.defined()) results.push_back(buffers.copy);
    return results;
  });
}

TEST(Backend, OfOurKernelsLacksProgramsAndTapsAndDecodes) {
  const auto ours = make_tested_backend(), composed = make_composed_backend(tested_device());
  EXPECT_TRUE(ours->serves({}));
  EXPECT_TRUE(ours->serves({.decoding = true}));
  EXPECT_FALSE(ours->serves({.program = true}));
  EXPECT_TRUE(ours->serves({.program = true, .decoding = true}));
  EXPECT_FALSE(ours->serves({.taps = true}));
  EXPECT_TRUE(composed->serves({.program = true, .taps = true, .decoding = true}));
}

}  // namespace
}  // namespace wavroute::ops
