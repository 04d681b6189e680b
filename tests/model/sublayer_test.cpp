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

TEST(Sublayer, BackwardIsTheGradientOfItsForward) {
  const auto model = scattered_model(small_spec("prenorm"), Precision::kFp64);
  for (const SublayerKind kind : {SublayerKind::kAttention, SublayerKind::kMlp}) {
    const Sublayer& f = model->sublayer({1, kind, 1});
    const int64_t width = model->spec().model.width;
    const auto random = [&](uint64_t seed) {
      at::manual_seed(seed);
      return at::randn({2, 9, width}, at::kDouble);
    };
    const at::Tensor x = random(1), du = random(2);

    std::vector<at::Tensor> inputs = {x.clone().set_requires_grad(true)};
    for (const Parameter* weight : f.weights()) inputs.push_back(weight->value);
    at::Tensor u;
    {
      const at::AutoGradMode with_grad(true);
      u = f.forward(inputs[0], {});
    }
    const auto expected = torch::autograd::grad({u}, inputs, {du});

    const at::NoGradGuard no_grad;
    model->parameters().zero_grad();
    Sublayer::Kept kept;
    EXPECT_LE(difference(f.run(x, model->backend(), &kept), u.detach()), 1e-12);
    const at::Tensor dx = f.run_backward(du, model->backend(), std::move(kept));
    EXPECT_LE(difference(dx, expected[0]), 1e-12);
    for (size_t i = 0; i < f.weights().size(); ++i) {
      EXPECT_LE(difference(f.weights()[i]->value.grad(), expected[i + 1]), 1e-12) << i;
    }
  }
}

}  // namespace
}  // namespace wavroute
