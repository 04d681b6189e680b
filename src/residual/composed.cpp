#include "residual/composed.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

namespace wavroute {
namespace {

at::Tensor as_leaf(const at::Tensor& tensor) {
  at::Tensor leaf = tensor.detach();
  if (leaf.is_floating_point()) leaf.set_requires_grad(true);
  return leaf;
}

ComposedStream::State as_leaves(const ComposedStream::State& state) {
  ComposedStream::State leaves;
  leaves.reserve(state.size());
  for (const at::Tensor& tensor : state) leaves.push_back(as_leaf(tensor));
  return leaves;
}

// Gradients that a backward left on `leaves`; zero where none arrived.
ComposedStream::State gradients(const ComposedStream::State& leaves) {
  ComposedStream::State result;
  result.reserve(leaves.size());
  for (const at::Tensor& leaf : leaves) {
    result.push_back(leaf.grad().defined() || !leaf.is_floating_point() ? leaf.grad()
                                                                        : at::zeros_like(leaf));
  }
  return result;
}

// Runs autograd from those `outputs` that have a history.
void backward(const ComposedStream::State& outputs, const ComposedStream::State& grads) {
  std::vector<at::Tensor> roots, root_grads;
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!outputs[i].requires_grad()) continue;
    roots.push_back(outputs[i]);
    root_grads.push_back(grads[i]);
  }
  torch::autograd::backward(roots, root_grads);
}

}  // namespace

void ComposedStream::begin(const at::Tensor& embedding) {
  const at::NoGradGuard no_grad;
  shape_ = embedding.sizes().vec();
  state_ = start(embedding);
}

at::Tensor ComposedStream::read(const Site& site) {
  const at::NoGradGuard no_grad;
  State state = enter(site, state_);
  if (!state.empty()) {
    if (record_) entered_.push_back(std::move(state_));
    state_ = std::move(state);
  }
  return state_[0];
}

void ComposedStream::write(const Site& site, const at::Tensor& update) {
  const at::NoGradGuard no_grad;
  State after = next(site, state_, update, /*live=*/true);
  if (record_) records_.push_back({std::move(state_), update});
  state_ = std::move(after);
}

at::Tensor ComposedStream::read_out() {
  const at::NoGradGuard no_grad;
  return output(state_);
}

void ComposedStream::read_out_backward(const at::Tensor& grad, double auxiliary_grad) {
  const at::AutoGradMode with_grad(true);
  const State leaves = as_leaves(state_);
  State outputs = {output(leaves)};
  State grads = {grad};
  if (const at::Tensor extra = auxiliary(leaves); extra.defined()) {
    outputs.push_back(extra);
    grads.push_back(at::full_like(extra, auxiliary_grad));
  }
  backward(outputs, grads);
  grad_ = gradients(leaves);
}

at::Tensor ComposedStream::write_backward(const Site& site) {
  const at::AutoGradMode with_grad(true);
  const Record record = std::move(records_.back());
  records_.pop_back();
  const State leaves = as_leaves(record.state);
  const at::Tensor update = as_leaf(record.update);
  backward(next(site, leaves, update, /*live=*/false), grad_);
  grad_ = gradients(leaves);
  return gradients({update})[0];
}

void ComposedStream::read_backward(const Site& site, const at::Tensor& grad) {
  {
    const at::NoGradGuard no_grad;
    grad_[0] = grad_[0] + grad;
  }
  if (entered_.empty()) return;
  const at::AutoGradMode with_grad(true);
  const State leaves = as_leaves(entered_.back());
  entered_.pop_back();
  backward(enter(site, leaves), grad_);
  grad_ = gradients(leaves);
}

at::Tensor ComposedStream::begin_backward() {
  const at::AutoGradMode with_grad(true);
  // Any tensor of its shape: start is linear in it.
  const at::Tensor embedding = as_leaf(at::empty(shape_, grad_[0].options()));
  backward(start(embedding), grad_);
  return gradients({embedding})[0];
}

void ComposedStream::restore(const StreamSnapshot& snapshot) {
  state_ = snapshot;
  records_.clear();
  entered_.clear();
}

}  // namespace wavroute
