// The routed operators of the back end `cuda`.
#include "kernels/cuda/route.h"

#include <vector>

#include "kernels/cuda/routers.h"
#include "ops/cuda/cuda_backend.h"
#include "ops/route_arguments.h"

namespace wavroute::ops {
namespace {

namespace cuda = kernels::cuda;

std::vector<cuda::RouterPointers> pointers_of(std::span<const RouterParameters> routers) {
  std::vector<cuda::RouterPointers> pointers;
  pointers.reserve(routers.size());
  for (const RouterParameters& router : routers) {
    pointers.push_back({in<float>(router.query), in<float>(router.gain), in<float>(router.bias),
                        out<float>(router.query_grad), out<float>(router.gain_grad),
                        out<float>(router.bias_grad)});
  }
  return pointers;
}

// The biases of a reader's running sources.
const float* biases_of(const RouterGroup& group, int64_t router) {
  return row_in<float>(group.routers.running_bias, router);
}

void run_mix(const PhaseOne& mix, cuda::Stream stream) {
  with_type(mix.group->sources.rows[0].scalar_type(), [&]<typename R>() {
    with_type(mix.group->mixed.scalar_type(), [&]<typename M>() {
      const SourcePointers<R> pointers(mix.group->sources);
      cuda::mix(arguments<R, M>(mix, pointers), mix.group->tokens(), stream);
    });
  });
}

}  // namespace

RouterRows CudaBackend::gather_routers(std::span<const RouterParameters> routers,
                                       std::span<const int64_t> sums, int64_t running, int64_t d) {
  const auto count = static_cast<int64_t>(routers.size());
  const auto sources = static_cast<int64_t>(sums.size());
  RouterRows rows{memory_.empty({count, d}, at::kFloat),
                  memory_.empty({count, sources}, at::kFloat),
                  memory_.empty({count, running}, at::kFloat)};
  const std::vector<cuda::RouterPointers> pointers = pointers_of(routers);
  cuda::gather_routers(
      {pointers.data(), sums.data(), count, sources, running, d, rows_out<float>(rows.query),
       rows_out<float>(rows.bias), rows_out<float>(rows.running_bias)},
      stream());
  return rows;
}

void CudaBackend::add_router_grads(std::span<const RouterParameters> routers,
                                   std::span<const int64_t> sums, const at::Tensor& query_grad,
                                   const at::Tensor& bias_grad) {
  const std::vector<cuda::RouterPointers> pointers = pointers_of(routers);
  cuda::add_router_grads({pointers.data(), sums.data(), static_cast<int64_t>(routers.size()),
                          static_cast<int64_t>(sums.size()), query_grad.size(1),
                          rows_in<float>(query_grad), rows_in<float>(bias_grad)},
                         stream());
}

void CudaBackend::source_scalars(const at::Tensor& row, const at::Tensor& summary,
                                 const RouteEps& eps, const at::Tensor& ratio,
                                 const at::Tensor& inverse) {
  with_type(row.scalar_type(), [&]<typename R>() {
    cuda::source_scalars(arguments<R>(row, summary, eps, ratio, inverse), row.size(0), stream());
  });
}

void CudaBackend::read(const RunningRead& read, const PhaseOne* mix, const BlockEnd* end) {
  if (end != nullptr) {
    with_type(end->type, [&]<typename C>() {
      cuda::finish_block(arguments<C>(*end), end->row[0].size(0), stream());
    });
  }
  if (mix != nullptr) run_mix(*mix, stream());
  const RouterGroup& group = *read.group;
  with_type(group.mixed.scalar_type(), [&]<typename C>() {
    cuda::write_read(arguments<C>(read), biases_of(group, read.router), group.mixed.size(1),
                     stream());
  });
}

void CudaBackend::read_backward(const RunningReadBackward& read) {
  const int64_t tokens = read.dx.size(0), d = read.dx.size(1);
  const at::Tensor scratch = floats(cuda::read_backward_floats(tokens, d));
  with_type(read.dx.scalar_type(), [&]<typename C>() {
    auto args = arguments<C>(read);
    args.gain_grad = out<float>(read.gain_grad);
    args.query_grad = out<float>(read.query_grad);
    float* const bias_grad = out<float>(read.bias_grad);
    for (int s = 0; bias_grad != nullptr && s < args.running; ++s) {
      args.sources[s].bias_grad = bias_grad + s;
    }
    cuda::read_backward(args, biases_of(*read.group, read.router), tokens, out<float>(scratch),
                        stream());
  });
}

void CudaBackend::mix_backward(const PhaseOneBackward& mix) {
  const RouterGroup& group = *mix.group;
  const int64_t tokens = group.tokens(), sources = std::ssize(group.sources.rows);
  const at::Tensor scratch =
      floats(cuda::mix_backward_floats(tokens, group.width(), mix.count, sources));
  const SourceGradPointers grads(mix);
  with_type(group.sources.rows[0].scalar_type(), [&]<typename R>() {
    with_type(group.dh.scalar_type(), [&]<typename M>() {
      const SourcePointers<R> pointers(group.sources);
      auto args = arguments<R, M>(mix, pointers, grads);
      args.query_grad = rows_out<float>(mix.query_grad);
      args.bias_grad = rows_out<float>(mix.bias_grad);
      cuda::mix_backward(args, tokens, out<float>(scratch), stream());
    });
  });
}

void CudaBackend::add_signed(std::span<const SignedGrad> grads, const at::Tensor& du) {
  with_type(du.scalar_type(), [&]<typename C>() {
    cuda::update_grad(arguments<C>(grads, du), du.numel() / du.size(-1), stream());
  });
}

}  // namespace wavroute::ops
