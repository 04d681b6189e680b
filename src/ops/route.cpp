#include "ops/route.h"

#include <memory>

#include "ops/parallel.h"
#include "ops/route_arguments.h"

namespace wavroute::ops {
namespace {

using Ranged = std::function<void(int64_t begin, int64_t end)>;

// Where a reader's biases are values of the arguments.
template <typename Args, typename Read>
Args with_biases(Args args, const Read& read) {
  const float* bias = row_in<float>(read.group->routers.running_bias, read.router);
  for (int s = 0; s < args.running; ++s) args.sources[s].bias = bias[s];
  return args;
}

template <typename R, typename M>
Ranged bound_mix(const PhaseOne& mix) {
  const auto pointers = std::make_shared<const SourcePointers<R>>(mix.group->sources);
  const auto args = arguments<R, M>(mix, *pointers);
  const auto kernel = kernels::chosen_kernels().finished->of<R>().mix.template of<M>().forward;
  return [=](int64_t begin, int64_t end) {
    (void)pointers;  // what args points to
    kernel(args, begin, end);
  };
}

Ranged bound(const PhaseOne& mix) {
  Ranged result;
  with_type(mix.group->sources.rows[0].scalar_type(), [&]<typename R>() {
    with_type(mix.group->mixed.scalar_type(), [&]<typename M>() { result = bound_mix<R, M>(mix); });
  });
  return result;
}

Ranged bound(const BlockEnd& end) {
  Ranged result;
  with_type(end.type, [&]<typename C>() {
    const auto args = arguments<C>(end);
    const auto kernel = kernels::chosen_kernels().running->of<C>().finish_block;
    result = [=](int64_t begin, int64_t to) { kernel(args, begin, to); };
  });
  return result;
}

Ranged bound(const RunningRead& read) {
  Ranged result;
  with_type(read.group->mixed.scalar_type(), [&]<typename C>() {
    const auto args = with_biases(arguments<C>(read), read);
    const auto kernel = kernels::chosen_kernels().running->of<C>().write_read;
    result = [=](int64_t begin, int64_t end) { kernel(args, begin, end); };
  });
  return result;
}

}  // namespace

// ---- parameters of routers ----------------------------------------------------------------------

RouterRows gather_routers(Memory& memory, std::span<const RouterParameters> routers,
                          std::span<const int64_t> sums, int64_t running, int64_t d) {
  const auto count = static_cast<int64_t>(routers.size());
  const auto sources = static_cast<int64_t>(sums.size());
  RouterRows rows{memory.empty({count, d}, at::kFloat).zero_(),
                  memory.empty({count, sources}, at::kFloat).zero_(),
                  memory.empty({count, running}, at::kFloat).zero_()};
  for (int64_t r = 0; r < count; ++r) {
    const RouterParameters& router = routers[static_cast<size_t>(r)];
    if (!router.query.defined()) continue;
    const float *w = in<float>(router.query), *g = in<float>(router.gain);
    float* query = row<float>(rows.query, r);
    for (int64_t c = 0; c < d; ++c) query[c] = w[c] * g[c];
    if (!router.bias.defined()) continue;
    const float* beta = in<float>(router.bias);
    for (int64_t j = 0; j < sources; ++j) {
      const int64_t sum = sums[static_cast<size_t>(j)];
      if (sum > 0) row<float>(rows.bias, r)[j] = beta[sum - 1];
    }
    for (int64_t s = 1; s < running; ++s) row<float>(rows.running_bias, r)[s] = beta[s - 1];
  }
  return rows;
}

void add_router_grads(std::span<const RouterParameters> routers, std::span<const int64_t> sums,
                      const at::Tensor& query_grad, const at::Tensor& bias_grad) {
  for (size_t r = 0; r < routers.size(); ++r) {
    const RouterParameters& router = routers[r];
    const float* t = row_in<float>(query_grad, static_cast<int64_t>(r));
    const float *w = in<float>(router.query), *g = in<float>(router.gain);
    float *dw = out<float>(router.query_grad), *dg = out<float>(router.gain_grad);
    for (int64_t c = 0; c < router.gain.numel(); ++c) {
      dw[c] += g[c] * t[c];
      dg[c] += w[c] * t[c];
    }
    if (!router.bias.defined()) continue;
    const float* db = row_in<float>(bias_grad, static_cast<int64_t>(r));
    float* beta_grad = out<float>(router.bias_grad);
    for (size_t j = 0; j < sums.size(); ++j) {
      if (sums[j] > 0) beta_grad[sums[j] - 1] += db[j];
    }
  }
}

// ---- finished sources ---------------------------------------------------------------------------

void source_scalars(const at::Tensor& row, const at::Tensor& summary, const RouteEps& eps,
                    const at::Tensor& ratio, const at::Tensor& inverse) {
  with_type(row.scalar_type(), [&]<typename R>() {
    const auto args = arguments<R>(row, summary, eps, ratio, inverse);
    const auto kernel = kernels::chosen_kernels().finished->of<R>().source_scalars;
    parallel_for(row.size(0), [&](int64_t begin, int64_t end) { kernel(args, begin, end); });
  });
}

void mix(const PhaseOne& mix) {
  const Ranged kernel = bound(mix);
  for_chunks(mix.group->tokens(), [&](int64_t, int64_t begin, int64_t end) { kernel(begin, end); });
}

void mix_backward(Memory& memory, const PhaseOneBackward& mix) {
  const RouterGroup& group = *mix.group;
  const int64_t tokens = group.tokens(), chunks = chunk_count(tokens);
  const size_t sources = group.sources.rows.size();
  const PartialSums query_grad(memory, chunks, mix.count * group.width());
  const PartialSums bias_grad(memory, chunks, mix.count * static_cast<int64_t>(sources));
  const SourceGradPointers grads(mix);
  with_type(group.sources.rows[0].scalar_type(), [&]<typename R>() {
    with_type(group.dh.scalar_type(), [&]<typename M>() {
      const SourcePointers<R> pointers(group.sources);
      const auto args = arguments<R, M>(mix, pointers, grads);
      const auto kernel = kernels::chosen_kernels().finished->of<R>().mix.template of<M>().backward;
      for_chunks(tokens, [&](int64_t chunk, int64_t begin, int64_t end) {
        kernels::MixFinishedBackward<R, M> own = args;
        own.query_grad = {query_grad.of(chunk), group.width()};
        own.bias_grad = {bias_grad.of(chunk), static_cast<int64_t>(sources)};
        kernel(own, begin, end);
      });
    });
  });
  query_grad.add_to(mix.query_grad);
  bias_grad.add_to(mix.bias_grad);
}

// ---- the running block --------------------------------------------------------------------------

void finish_block(const BlockEnd& end) {
  const Ranged kernel = bound(end);
  for_chunks(end.row[0].size(0), [&](int64_t, int64_t begin, int64_t to) { kernel(begin, to); });
}

void read(const RunningRead& read, const PhaseOne* mix, const BlockEnd* end) {
  const Ranged finish_kernel = end != nullptr ? bound(*end) : Ranged();
  const Ranged mix_kernel = mix != nullptr ? bound(*mix) : Ranged();
  const Ranged read_kernel = bound(read);
  for_chunks(read.group->mixed.size(1), [&](int64_t, int64_t begin, int64_t to) {
    if (finish_kernel) finish_kernel(begin, to);
    if (mix_kernel) mix_kernel(begin, to);
    read_kernel(begin, to);
  });
}

void read_backward(Memory& memory, const RunningReadBackward& read, const ChunkHooks& hooks) {
  const int64_t tokens = read.dx.size(0), d = read.dx.size(1), chunks = chunk_count(tokens);
  const PartialSums gain_grad(memory, chunks, d, read.gain_grad.defined());
  const PartialSums query_grad(memory, chunks, d, read.query_grad.defined());
  const PartialSums bias_grad(memory, chunks, read.sources.count, read.bias_grad.defined());
  with_type(read.dx.scalar_type(), [&]<typename C>() {
    const kernels::ReadBackward<C> args = with_biases(arguments<C>(read), read);
    const auto kernel = kernels::chosen_kernels().running->of<C>().read_backward;
    for_chunks(tokens, [&](int64_t chunk, int64_t begin, int64_t end) {
      kernels::ReadBackward<C> own = args;
      own.gain_grad = gain_grad.of(chunk);
      own.query_grad = query_grad.of(chunk);
      for (int s = 0; read.bias_grad.defined() && s < own.running; ++s) {
        own.sources[s].bias_grad = bias_grad.of(chunk) + s;
      }
      if (hooks.before) hooks.before(begin, end);
      kernel(own, begin, end);
      if (hooks.after) hooks.after(begin, end);
    });
  });
  gain_grad.add_to(read.gain_grad);
  query_grad.add_to(read.query_grad);
  bias_grad.add_to(read.bias_grad);
}

void add_signed(std::span<const SignedGrad> grads, const at::Tensor& du) {
  const int64_t d = du.size(-1);
  with_type(du.scalar_type(), [&]<typename C>() {
    const auto args = arguments<C>(grads, du);
    const auto kernel = kernels::chosen_kernels().running->of<C>().update_grad;
    for_chunks(du.numel() / d,
               [&](int64_t, int64_t begin, int64_t end) { kernel(args, begin, end); });
  });
}

}  // namespace wavroute::ops
