#include "ops/products.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "ops/flat.h"
#include "ops/parallel.h"
#include "ops/typed.h"

// MKL's, which libtorch brings on x86-64; null elsewhere.
extern "C" {
// C [m, n] (float) = alpha A B + beta C.
[[gnu::weak]] void cblas_gemm_bf16bf16f32(int layout, int transpose_a, int transpose_b, int m,
                                          int n, int k, float alpha, const void* a, int lda,
                                          const void* b, int ldb, float beta, float* c, int ldc);
// The same of floats, all three column by column.
[[gnu::weak]] void sgemm_(const char* transpose_a, const char* transpose_b, const int* m,
                          const int* n, const int* k, const float* alpha, const float* a,
                          const int* lda, const float* b, const int* ldb, const float* beta,
                          float* c, const int* ldc);
// With it, products in a loop's body stay on its own thread (parallel.cpp).
[[gnu::weak]] int MKL_Set_Num_Threads_Local(int threads);
}

namespace wavroute::ops {
namespace {

constexpr int kRowMajor = 101, kPlain = 111, kTransposed = 112;  // of cblas.h
constexpr int64_t kMost = std::numeric_limits<int>::max();

// ---- fp32: tiles of the output, each on one thread --------------------------------------------
//
// MKL divides a product by the number of threads, sums included, and on some machines another
// division gives other bits. Tiles that follow from the shape alone are the same with any number of
// threads. With two threads they are as fast as MKL's own cut (docs/experiments.md).

// C [m, n] += A [m, k] B [k, n] row by row, or = where `adds` is false.
struct Product {
  struct Factor {
    const float* at;
    int64_t pitch;
    bool transposed = false;
  };
  Factor a, b;
  float* c;
  int64_t m, n, k;
  bool adds = false;
};

// The rows [row, row + rows) and columns of C.
void multiply_tile(const Product& p, int64_t row, int64_t rows, int64_t column, int64_t columns) {
  const float* a = p.a.at + row * (p.a.transposed ? 1 : p.a.pitch);
  const float* b = p.b.at + column * (p.b.transposed ? p.b.pitch : 1);
  const auto size = [](int64_t n) { return static_cast<int>(n); };
  const int m = size(rows), n = size(columns), k = size(p.k);
  const int pitch_a = size(p.a.pitch), pitch_b = size(p.b.pitch), pitch_c = size(p.n);
  const float one = 1.0F, kept = p.adds ? 1.0F : 0.0F;
  // Column by column, what lies row by row is its transpose: C^T = B^T A^T.
  sgemm_(p.b.transposed ? "T" : "N", p.a.transposed ? "T" : "N", &n, &m, &k, &one, b, &pitch_b, a,
         &pitch_a, &kept, p.c + row * p.n + column, &pitch_c);
}

// False if nothing was done: without MKL, or for a tensor beyond its integers.
bool multiply(const Product& p) {
  if (sgemm_ == nullptr || MKL_Set_Num_Threads_Local == nullptr) return false;
  if (std::max({p.m, p.n, p.k}) > kMost) return false;
  // Large enough that packing is cheap compared with multiplying, small enough to keep many threads
  // busy: halved while there are fewer than 16, the last time for fewer than 8.
  int64_t rows = 256, columns = 512;
  const auto tiles = [&] { return chunk_count(p.m, rows) * chunk_count(p.n, columns); };
  if (tiles() < 16) columns = 256;
  if (tiles() < 16) rows = 128;
  if (tiles() < 8) columns = 128;
  const int64_t across = chunk_count(p.n, columns);
  parallel_for(tiles(), [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t row = tile / across * rows, column = tile % across * columns;
      multiply_tile(p, row, std::min(rows, p.m - row), column, std::min(columns, p.n - column));
    }
  });
  return true;
}

bool are_floats(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c) {
  return a.scalar_type() == at::kFloat && b.scalar_type() == at::kFloat &&
         c.scalar_type() == at::kFloat && c.is_contiguous();
}

// ---- bf16 ---------------------------------------------------------------------------------------

// grad (float) += du^T x (bfloat16) in one product: libtorch's operators give bfloat16 only, which
// would round the gradient and take another pass over it.
bool add_product(const at::Tensor& du, const at::Tensor& x, const at::Tensor& grad) {
  const int64_t tokens = du.size(0), rows = du.size(1), columns = x.size(1);
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

at::Tensor project(Memory& memory, const at::Tensor& x, const at::Tensor& w) {
  at::Tensor u = memory.empty({x.size(0), w.size(0)}, x.scalar_type());
  if (are_floats(x, w, u)) {
    const at::Tensor a = x.contiguous(), b = w.contiguous();
    const Product product = {{in<float>(a), a.size(1)},
                             {in<float>(b), b.size(1), /*transposed=*/true},
                             out<float>(u),
                             u.size(0),
                             u.size(1),
                             a.size(1)};
    if (multiply(product)) return u;
  }
  return at::mm_out(u, x, w.t());
}

at::Tensor project_backward(Memory& memory, const at::Tensor& du, const at::Tensor& w) {
  at::Tensor dx = memory.empty({du.size(0), w.size(1)}, du.scalar_type());
  if (are_floats(du, w, dx)) {
    const at::Tensor a = du.contiguous(), b = w.contiguous();
    const Product product = {{in<float>(a), a.size(1)},
                             {in<float>(b), b.size(1)},
                             out<float>(dx),
                             dx.size(0),
                             dx.size(1),
                             a.size(1)};
    if (multiply(product)) return dx;
  }
  return at::mm_out(dx, du, w);
}

void add_weight_grad(Memory& memory, const at::Tensor& du, const at::Tensor& x, at::Tensor grad) {
  if (are_floats(du, x, grad)) {
    const at::Tensor a = du.contiguous(), b = x.contiguous();
    const Product product = {{in<float>(a), a.size(1), /*transposed=*/true},
                             {in<float>(b), b.size(1)},
                             out<float>(grad),
                             grad.size(0),
                             grad.size(1),
                             a.size(0),
                             /*adds=*/true};
    if (multiply(product)) return;
  }
  if (du.scalar_type() == grad.scalar_type()) {
    at::addmm_out(grad, grad, du.t(), x);
    return;
  }
  if (add_product(du, x, grad)) return;
  at::Tensor narrow = memory.empty(grad.sizes(), du.scalar_type());
  at::mm_out(narrow, du.t(), x);
  add_bf16(narrow, grad);
}

}  // namespace wavroute::ops
