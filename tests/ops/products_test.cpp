// The products of a sublayer.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <vector>

#include "ops/arena.h"
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

// Larger than a tile both ways, with rests; one tile; a product of nothing.
struct Sizes {
  int64_t tokens, in, out;
};
const std::vector<Sizes> kSizes = {{700, 70, 530}, {300, 300, 300}, {5, 7, 3}, {0, 4, 6}};

// The three products of a sublayer.
std::vector<at::Tensor> products(const Sizes& s, at::ScalarType type) {
  Arena arena;
  at::manual_seed(1);
  const at::Tensor x = at::randn({s.tokens, s.in}), w = at::randn({s.out, s.in});
  const at::Tensor du = at::randn({s.tokens, s.out});
  at::Tensor grad = at::ones({s.out, s.in}, type == at::kDouble ? at::kDouble : at::kFloat);
  if (type == at::kDouble) {
    const at::Tensor a = x.to(type), b = w.to(type), d = du.to(type);
    return {at::mm(a, b.t()), at::mm(d, b), grad + at::mm(d.t(), a)};
  }
  add_weight_grad(arena, du.to(type), x.to(type), grad);
  return {project(arena, x.to(type), w.to(type)), project_backward(arena, du.to(type), w.to(type)),
          grad};
}

TEST(Products, AreThoseOfTheirFormulas) {
  for (const Sizes& sizes : kSizes) {
    const auto exact = products(sizes, at::kDouble);
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      const auto found = products(sizes, type);
      for (size_t i = 0; i < exact.size(); ++i) {
        ASSERT_EQ(found[i].sizes(), exact[i].sizes());
        const double error = (found[i].to(at::kDouble) - exact[i]).norm().item<double>();
        EXPECT_LE(error, (type == at::kFloat ? 1e-6 : 1e-2) * exact[i].norm().item<double>()) << i;
      }
    }
  }
}

TEST(Products, InFp32AreTheSameBitForBitWithAnyNumberOfThreads) {
  const int before = at::get_num_threads();
  for (const Sizes& sizes : kSizes) {
    at::set_num_threads(1);
    const auto expected = products(sizes, at::kFloat);
    for (const int threads : {2, 3}) {
      at::set_num_threads(threads);
      const auto found = products(sizes, at::kFloat);
      for (size_t i = 0; i < expected.size(); ++i) {
        EXPECT_TRUE(at::equal(found[i], expected[i])) << i << ", " << threads << " threads";
      }
    }
  }
  at::set_num_threads(before);
}

TEST(Products, LeaveOtherProductsTheirThreads) {
  if (dlsym(RTLD_DEFAULT, "MKL_Get_Max_Threads") == nullptr) GTEST_SKIP() << "no MKL";
  const auto most = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "MKL_Get_Max_Threads"));
  const int before = most();
  static_cast<void>(products(kSizes[2], at::kFloat));
  EXPECT_EQ(most(), before);
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
