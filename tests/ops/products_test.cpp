// The products of a sublayer.
#include <ATen/ATen.h>
#include <dlfcn.h>
#include <gtest/gtest.h>

#include "ops/products.h"

namespace wavroute::ops {
namespace {

// 1 + 2^-12 is a float and no bfloat16, and neither is what it is added to.
TEST(AddWeightGrad, KeepsTheFloatSumOfBf16Products) {
  if (dlsym(RTLD_DEFAULT, "cblas_gemm_bf16bf16f32") == nullptr) {
    GTEST_SKIP()
        << "this libtorch has no such product: gradients are rounded to bfloat16 on the way";
  }
  Arena arena;
  const at::Tensor du = at::tensor({1.0, 0x1p-12}).view({2, 1}).expand({2, 3}).contiguous();
  const at::Tensor x = at::ones({2, 5}, at::kBFloat16);
  at::Tensor grad = at::full({3, 5}, 2.0);
  add_weight_grad(arena, du.to(at::kBFloat16), x, grad);
  EXPECT_TRUE(at::equal(grad, at::full({3, 5}, 3.0 + 0x1p-12)));
}

TEST(AddWeightGrad, AddsTheProductInBothTypes) {
  Arena arena;
  const at::Tensor du = at::arange(21.0).view({7, 3}), x = at::arange(35.0).view({7, 5});
  for (const auto type : {at::kFloat, at::kBFloat16}) {  // small integers: exact in both
    at::Tensor grad = at::ones({3, 5});
    add_weight_grad(arena, du.to(type), x.to(type), grad);
    const at::Tensor expected = at::matmul(du.t().to(at::kDouble), x.to(at::kDouble)).add_(1.0);
    const double error = (grad.to(at::kDouble) - expected).abs().max().item<double>();
    EXPECT_LE(error, type == at::kFloat ? 0.0 : expected.max().item<double>() * 0x1p-8);
  }
}

TEST(AddWeightGrad, TakesAnEmptyBatch) {
  Arena arena;
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    at::Tensor grad = at::ones({3, 5});
    add_weight_grad(arena, at::empty({0, 3}, type), at::empty({0, 5}, type), grad);
    EXPECT_TRUE(at::equal(grad, at::ones({3, 5})));
  }
}

}  // namespace
}  // namespace wavroute::ops
