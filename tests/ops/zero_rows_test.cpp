// Stock operators on rows of zeros where an eps is zero.
#include "ops/zero_rows.h"
#include "ops/arena.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "ops/norm.h"

namespace wavroute::ops {
namespace {

// Two rows, the first of zeros.
at::Tensor rows() { return at::tensor({0.0F, 0.0F, 3.0F, 4.0F}).view({2, 2}); }

TEST(ZeroRows, HaveANormAndAGradientOfZeroOnStockOperatorsAndKernels) {
  const at::Tensor gain = at::tensor({2.0F, 1.0F}), dx = at::ones({2, 2});
  const at::Tensor h = rows().set_requires_grad(true);
  const at::Tensor leaf_gain = gain.clone().set_requires_grad(true);
  const at::Tensor x = rms_norm(h, leaf_gain, 0.0);
  EXPECT_LE((x.detach()[1] - at::tensor({6.0F, 4.0F}) / std::sqrt(12.5)).abs().max().item<double>(),
            1e-6);
  EXPECT_TRUE(at::equal(x.detach()[0], at::zeros({2})));
  torch::autograd::backward({x}, {dx});
  EXPECT_TRUE(at::equal(h.grad()[0], at::zeros({2})));
  EXPECT_TRUE(h.grad().isfinite().all().item<bool>());

  Arena arena;
  const Norm norm{gain, 0.0, at::zeros({2})};
  const Normed normed = add_norm(arena, rows(), {}, norm, at::kFloat);
  const at::Tensor dh = at::zeros({2, 2});
  static_cast<void>(add_norm_backward(arena, dx, normed, norm, {}, dh, /*first=*/true));
  EXPECT_TRUE(at::allclose(normed.x, x.detach(), 1e-6, 1e-6));
  EXPECT_TRUE(at::allclose(dh, h.grad(), 1e-5, 1e-6));
  EXPECT_TRUE(at::allclose(norm.gain_grad, leaf_gain.grad(), 1e-6, 1e-6));
}

TEST(ZeroRows, AreTheStockNormWhereAnEpsIsLeft) {
  const at::Tensor gain = at::tensor({2.0F, 1.0F});
  EXPECT_TRUE(at::equal(rms_norm(rows(), gain, 1e-6), at::rms_norm(rows(), {2}, gain, 1e-6)));
}

TEST(ZeroRows, MakeRootsAndQuotientsZeroAndTheirSlopesToo) {
  for (const double eps : {0.0, 1e-60}) {  // the second is none in a float
    const at::Tensor square = at::tensor({0.0F, 4.0F}).set_requires_grad(true);
    const at::Tensor root = inverse_root(square, eps);
    torch::autograd::backward({root}, {at::ones({2})});
    EXPECT_TRUE(at::equal(root.detach(), at::tensor({0.0F, 0.5F})));
    EXPECT_TRUE(at::equal(square.grad(), at::tensor({0.0F, -0.0625F})));
    EXPECT_TRUE(
        at::equal(quotient(at::tensor({0.0F, 1.0F, 1.0F}), at::tensor({0.0F, 0.0F, 2.0F}), eps),
                  at::tensor({0.0F, 0.0F, 0.5F})));
  }
}

}  // namespace
}  // namespace wavroute::ops
