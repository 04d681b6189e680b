#include "residual/product.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ops/parallel.h"
#include "ops/products.h"

namespace wavroute {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// What a pointer needs to be kept with a graph.
struct ArenaOf final : torch::CustomClassHolder {
  explicit ArenaOf(ops::Arena* to) : arena(to) {}
  ops::Arena* arena;
};

struct Product : torch::autograd::Function<Product> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& w,
                            ops::Arena* arena) {
    context->save_for_backward({x, w});
    context->saved_data["arena"] = c10::IValue::make_capsule(c10::make_intrusive<ArenaOf>(arena));
    return ops::project(*arena, x, w);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const at::NoGradGuard no_grad;
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &w = saved[1];
    const auto kept = context->saved_data["arena"].toCapsule();
    ops::Arena& arena = *static_cast<const ArenaOf&>(*kept).arena;
    const at::Tensor grad = grads[0].contiguous();
    variable_list result(3);
    if (context->needs_input_grad(0)) result[0] = ops::project_backward(arena, grad, w);
    if (context->needs_input_grad(1)) {
      result[1] = at::zeros_like(w);
      ops::add_weight_grad(arena, grad, x, result[1]);
    }
    return result;
  }
};

// a [N,m,k] b [N,k,n]. Each chunk's products are on one thread.
at::Tensor by_chunks(const at::Tensor& a, const at::Tensor& b) {
  at::Tensor c = at::empty({a.size(0), a.size(1), b.size(2)}, a.options());
  ops::for_chunks(a.size(0), [&](int64_t, int64_t begin, int64_t end) {
    const at::NoGradGuard no_grad;  // of this thread
    at::Tensor part = c.narrow(0, begin, end - begin);
    at::bmm_out(part, a.narrow(0, begin, end - begin), b.narrow(0, begin, end - begin));
  });
  return c;
}

struct BatchedProduct : torch::autograd::Function<BatchedProduct> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& a, const at::Tensor& b) {
    context->save_for_backward({a, b});
    return by_chunks(a, b);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const at::NoGradGuard no_grad;
    const variable_list saved = context->get_saved_variables();
    const at::Tensor grad = grads[0].contiguous();
    return {by_chunks(grad, saved[1].transpose(1, 2)), by_chunks(saved[0].transpose(1, 2), grad)};
  }
};

}  // namespace

at::Tensor product(ops::Arena* arena, const at::Tensor& x, const at::Tensor& w) {
  if (arena == nullptr) return at::linear(x, w);
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = w.size(0);
  return Product::apply(x.flatten(0, -2), w, arena).view(shape);
}

at::Tensor batched_product(ops::Arena* arena, const at::Tensor& a, const at::Tensor& b) {
  if (arena == nullptr) return at::matmul(a, b);
  return BatchedProduct::apply(a.flatten(0, 1), b.flatten(0, 1))
      .view({a.size(0), a.size(1), a.size(2), b.size(3)});
}

}  // namespace wavroute
