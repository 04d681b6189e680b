#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

#include "base/nearest.h"
#include "opbench/operator.h"
#include "wavroute/error.h"

namespace wavroute::opbench {

std::span<const Operator> operators() {
  static const std::vector<Operator> all = {
      {"norm", "a write to the additive stream and the norm after it", show_norm},
      {"swiglu", "silu(gate) * up, four times as wide", show_swiglu},
      {"attention", "causal attention with RoPE, heads of 64", show_attention},
      {"few_products", "decoding: a matrix by one token and by eight", show_few_products},
      {"q8_products", "the same in blocks of q8_0", show_q8_products},
      {"cached_attention", "decoding: a token over a cache", show_cached_attention},
      {"cross_entropy", "loss and gradient of 16 logits per column", show_cross_entropy},
      {"adamw", "an update of four parameters per token and column", show_adamw},
      {"sum_of_squares", "squared norm of four gradients per token and column",
       show_sum_of_squares},
      {"route_mix", "phase 1 of a block: 16 routers over finished sources", show_route_mix},
      {"route_mix_each", "phase 1 router by router, all into one row", show_route_mix_each},
      {"route_mix_backward", "backward of route_mix, all routers at once", show_route_mix_backward},
      {"route_write_read", "a write to one of four parts, phase 2 of three sums, norm",
       show_route_write_read},
      {"route_read_backward", "its backward", show_route_read_backward},
      {"route_block", "16 reads and writes of a third block with two details", show_route_block},
  };
  return all;
}

std::vector<const Operator*> find_operators(std::span<const std::string> names) {
  std::vector<std::string> known;
  for (const Operator& op : operators()) known.push_back(op.name);
  for (const std::string& name : names) {
    if (std::ranges::count(known, name) > 0) continue;
    throw expected("an operator", "'" + name + "'", {},
                   fmt::format("did you mean '{}'? wavroute bench op --help lists them",
                               nearest(name, known)));
  }
  std::vector<const Operator*> found;
  for (const Operator& op : operators()) {
    if (names.empty() || std::ranges::count(names, op.name) > 0) found.push_back(&op);
  }
  return found;
}

at::Tensor values(at::IntArrayRef sizes, at::ScalarType type) {
  return at::randn(sizes, at::TensorOptions().dtype(at::kFloat)).to(type);
}

at::Tensor leaf(const at::Tensor& tensor) { return tensor.detach().set_requires_grad(true); }

Tensors gradients(const Tensors& outputs, const Tensors& inputs, const Tensors& directions) {
  return torch::autograd::grad(outputs, inputs, directions, /*retain_graph=*/true);
}

double bytes_of(const Tensors& tensors) {
  double bytes = 0;
  for (const at::Tensor& tensor : tensors) bytes += static_cast<double>(tensor.nbytes());
  return bytes;
}

std::string rows_by_columns(int64_t rows, int64_t columns) {
  return fmt::format("{} x {}", rows, columns);
}

}  // namespace wavroute::opbench
