// The hand-written backwards of sublayers against autograd over their forward, in float64.
#include "model/sublayer.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <torch/csrc/autograd/autograd.h>

#include "tests/model/small_model.h"

namespace wavroute {
namespace {

using testing::difference;
using testing::scattered_model;
using testing::small_spec;

// A head wider than the width over the heads, biases, and a RoPE that scales its values.
DecoderSpec unusual_spec() {
  DecoderSpec spec = small_spec("prenorm");
  spec.model.head_dim = 12;
  spec.model.attention_bias = true;
  spec.model.rope_scaling.rope_type = RopeType::kYarn;
  spec.model.rope_scaling.factor = 4;
  spec.model.rope_scaling.original_max_position_embeddings = 64;
  return spec;
}

class EverySublayer : public ::testing::TestWithParam<bool> {
 protected:
  [[nodiscard]] static DecoderSpec spec() {
    return GetParam() ? unusual_spec() : small_spec("prenorm");
  }

  // Values and gradients of run() and run_backward() on the model's back end, against autograd over
  // run() on stock operators.
  static void expect_gradients(const Decoder& model, Decoder& mutable_model, double tolerance) {
    const at::ScalarType type = storage_type(model.precision());
    const auto composed = ops::make_composed_backend(at::kCPU);
    for (const SublayerKind kind : {SublayerKind::kAttention, SublayerKind::kMlp}) {
      const Sublayer& f = model.sublayer({1, kind, 1});
      const int64_t width = model.spec().model.width;
      const auto random = [&](uint64_t seed) {
        at::manual_seed(seed);
        return at::randn({2, 9, width}, at::kDouble).to(type);
      };
      const at::Tensor x = random(1), du = random(2);

      std::vector<at::Tensor> inputs = {x.clone().set_requires_grad(true)};
      for (const Parameter* weight : f.weights()) inputs.push_back(weight->value);
      at::Tensor u;
      {
        const at::AutoGradMode with_grad(true);
        u = f.run(inputs[0], *composed, nullptr, {});
      }
      const auto expected = torch::autograd::grad({u}, inputs, {du});

      const at::NoGradGuard no_grad;
      mutable_model.parameters().zero_grad();
      model.backend().begin_pass();
      Sublayer::Kept kept;
      EXPECT_LE(difference(f.run(x, model.backend(), &kept, {}), u.detach()), tolerance);
      const at::Tensor dx = f.run_backward(du, model.backend(), std::move(kept));
      EXPECT_LE(difference(dx, expected[0]), tolerance);
      for (size_t i = 0; i < f.weights().size(); ++i) {
        EXPECT_LE(difference(f.weights()[i]->value.grad(), expected[i + 1]), tolerance) << i;
      }
    }
  }
};

TEST_P(EverySublayer, BackwardIsTheGradientOfItsForward) {
  const auto model = scattered_model(spec(), Precision::kFp64);
  expect_gradients(*model, *model, 1e-12);
}

TEST_P(EverySublayer, BackwardOnOurKernelsIsToo) {
  const auto model = scattered_model(spec(), Precision::kFp32);
  model->use_kernels(KernelChoice::kFused);
  expect_gradients(*model, *model, 1e-4);
}

INSTANTIATE_TEST_SUITE_P(, EverySublayer, ::testing::Bool(), [](const auto& info) {
  return info.param ? "WithBiasesAndItsOwnHeadWidth" : "Plain";
});

TEST(Sublayer, OfAttentionHasFourWeightsWithBiases) {
  const auto model = scattered_model(unusual_spec());
  EXPECT_EQ(model->sublayer({0, SublayerKind::kAttention, 0}).weights().size(), 4U);
  const ModelConfig& m = model->spec().model;
  int64_t count = 0;
  for (const Parameter& parameter : model->parameters().parameters()) {
    for (const ParameterSlice& slice : parameter.slices) {
      if (slice.name.ends_with(".bias")) count += slice.rows;
    }
  }
  EXPECT_EQ(count, m.layers * (m.width + (m.heads + 2 * m.kv_heads) * 12));
}

}  // namespace
}  // namespace wavroute
