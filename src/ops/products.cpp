#include "ops/products.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "ops/flat.h"
#include "ops/typed.h"

// MKL's, which libtorch brings on x86-64; null elsewhere. C [m, n] (float) = alpha A B + beta C.
extern "C" [[gnu::weak]] void cblas_gemm_bf16bf16f32(int layout, int transpose_a, int transpose_b,
                                                     int m, int n, int k, float alpha,
                                                     const void* a, int lda, const void* b, int ldb,
                                                     float beta, float* c, int ldc);

namespace wavroute::ops {
namespace {

constexpr int kRowMajor = 101, kPlain = 111, kTransposed = 112;  // of cblas.h

// grad (float) += du^T x (bfloat16) in one product: libtorch's operators give bfloat16 only, which
// would round the gradient and go over it once more.
bool add_product(const at::Tensor& du, const at::Tensor& x, const at::Tensor& grad) {
  const int64_t tokens = du.size(0), rows = du.size(1), columns = x.size(1);
  constexpr int64_t kMost = std::numeric_limits<int>::max();
  if (cblas_gemm_bf16bf16f32 == nullptr || std::max({tokens, rows, columns}) > kMost) return false;
  if (du.scalar_type() != at::kBFloat16 || x.scalar_type() != at::kBFloat16) return false;
  if (!du.is_contiguous() || !x.is_contiguous() || !grad.is_contiguous()) return false;
  if (tokens == 0) return true;
  const int m = static_cast<int>(rows), n = static_cast<int>(columns);
  cblas_gemm_bf16bf16f32(kRowMajor, kTransposed, kPlain, m, n, static_cast<int>(tokens), 1.0F,
                         du.const_data_ptr(), m, x.const_data_ptr(), n, 1.0F, out<float>(grad), n);
  return true;
}

}  // namespace

at::Tensor project(Arena& arena, const at::Tensor& x, const at::Tensor& w) {
  at::Tensor u = arena.empty({x.size(0), w.size(0)}, x.scalar_type());
  return at::mm_out(u, x, w.t());
}

at::Tensor project_backward(Arena& arena, const at::Tensor& du, const at::Tensor& w) {
  at::Tensor dx = arena.empty({du.size(0), w.size(1)}, du.scalar_type());
  return at::mm_out(dx, du, w);
}

void add_weight_grad(Arena& arena, const at::Tensor& du, const at::Tensor& x, at::Tensor grad) {
  if (du.scalar_type() == grad.scalar_type()) {
    at::addmm_out(grad, grad, du.t(), x);
    return;
  }
  if (add_product(du, x, grad)) return;
  at::Tensor narrow = arena.empty(grad.sizes(), du.scalar_type());
  at::mm_out(narrow, du.t(), x);
  add_bf16(narrow, grad);
}

}  // namespace wavroute::ops
