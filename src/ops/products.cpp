#include "ops/products.h"

#include <ATen/ATen.h>

#include "ops/flat.h"

namespace wavroute::ops {

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
  at::Tensor narrow = arena.empty(grad.sizes(), du.scalar_type());
  at::mm_out(narrow, du.t(), x);
  add_bf16(narrow, grad);
}

}  // namespace wavroute::ops
