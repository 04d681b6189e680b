#include "residual/product.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

namespace wavroute {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// A back end kept with a graph, which it outlives.
struct BackendOf final : torch::CustomClassHolder {
  explicit BackendOf(ops::Backend* to) : backend(to) {}
  ops::Backend* backend;
};

void keep(AutogradContext* context, const at::Tensor& a, const at::Tensor& b,
          ops::Backend* backend) {
  context->save_for_backward({a, b});
  context->saved_data["backend"] =
      c10::IValue::make_capsule(c10::make_intrusive<BackendOf>(backend));
}

ops::Backend& kept_backend(AutogradContext* context) {
  const auto kept = context->saved_data["backend"].toCapsule();
  return *static_cast<const BackendOf&>(*kept).backend;
}

struct Product : torch::autograd::Function<Product> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& w,
                            ops::Backend* backend) {
    keep(context, x, w, backend);
    return backend->project(x, w);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const at::NoGradGuard no_grad;
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &w = saved[1];
    ops::Backend& backend = kept_backend(context);
    const at::Tensor grad = grads[0].contiguous();
    variable_list result(3);
    if (context->needs_input_grad(0)) result[0] = backend.project_backward(grad, w);
    if (context->needs_input_grad(1)) {
      result[1] = at::zeros_like(w);
      backend.add_weight_grad(grad, x, result[1]);
    }
    return result;
  }
};

// a [N,m,k] b [N,k,n]
struct BatchedProduct : torch::autograd::Function<BatchedProduct> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& a, const at::Tensor& b,
                            ops::Backend* backend) {
    keep(context, a, b, backend);
    return backend->batched_product(a, b);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const at::NoGradGuard no_grad;
    const variable_list saved = context->get_saved_variables();
    ops::Backend& backend = kept_backend(context);
    const at::Tensor grad = grads[0].contiguous();
    return {backend.batched_product(grad, saved[1].transpose(1, 2)),
            backend.batched_product(saved[0].transpose(1, 2), grad),
            {}};
  }
};

}  // namespace

at::Tensor product(ops::Backend& backend, const at::Tensor& x, const at::Tensor& w) {
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = w.size(0);
  return Product::apply(x.flatten(0, -2), w, &backend).view(shape);
}

at::Tensor batched_product(ops::Backend& backend, const at::Tensor& a, const at::Tensor& b) {
  return BatchedProduct::apply(a.flatten(0, 1), b.flatten(0, 1), &backend)
      .view({a.size(0), a.size(1), a.size(2), b.size(3)});
}

}  // namespace wavroute
