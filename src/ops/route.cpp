#include "ops/route.h"

#include <memory>
#include <type_traits>

#include "ops/parallel.h"
#include "ops/typed.h"

namespace wavroute::ops {
namespace {

using Ranged = std::function<void(int64_t begin, int64_t end)>;

// Row `index` of a tensor of two dimensions.
template <typename T>
T* row(const at::Tensor& of, int64_t index) {
  return rows_out<T>(of)[index];
}
template <typename T>
const T* row_in(const at::Tensor& of, int64_t index) {
  return rows_in<T>(of)[index];
}

// Entry `index` of a tensor of three.
template <typename T>
kernels::Grid<T> grid(const at::Tensor& of, int64_t index) {
  if (!of.defined()) return {};
  return {out<T>(of) + index * of.stride(0), of.stride(1)};
}
template <typename T>
kernels::Grid<const T> grid_in(const at::Tensor& of, int64_t index) {
  if (!of.defined()) return {};
  return {in<T>(of) + index * of.stride(0), of.stride(1)};
}

// All entries from `first` on.
template <typename T>
kernels::Grids<T> grids(const at::Tensor& of, int64_t first) {
  return {grid<T>(of, first).at, of.stride(0), of.stride(1)};
}
template <typename T>
kernels::Grids<const T> grids_in(const at::Tensor& of, int64_t first) {
  return {grid_in<T>(of, first).at, of.stride(0), of.stride(1)};
}

// logits [R n, tokens] of routers with `sources` each, as [R, n, tokens], from router `first` on.
template <typename Grid>
auto by_router(const Grid& logits, int64_t first, int64_t sources) {
  const Grid from = logits.from(first * sources);
  return kernels::Grids<std::remove_pointer_t<decltype(from.at)>>{from.at, sources * from.pitch,
                                                                  from.pitch};
}

float number(double x) { return static_cast<float>(x); }

// The finished sources as the kernels take them.
template <typename R>
struct SourcePointers {
  explicit SourcePointers(const FinishedSources& sources) {
    for (size_t j = 0; j < sources.rows.size(); ++j) {
      rows.push_back(rows_in<R>(sources.rows[j]));
      ratio.push_back(row_in<float>(sources.ratio, static_cast<int64_t>(j)));
      inverse.push_back(row_in<float>(sources.inverse, static_cast<int64_t>(j)));
    }
  }
  std::vector<kernels::Grid<const R>> rows;
  std::vector<const float*> ratio, inverse;
};

// What both directions of phase 1 are told of `count` routers from `first` on.
template <typename R, typename Args>
void set_sources(Args& args, const SourcePointers<R>& pointers, const RouterGroup& group,
                 int64_t first, int64_t count) {
  args.d = group.width();
  args.sources = static_cast<int64_t>(group.sources.rows.size());
  args.routers = count;
  args.rows = pointers.rows.data();
  args.ratio = pointers.ratio.data();
  args.inverse = pointers.inverse.data();
  args.query = rows_in<float>(group.routers.query).from(first);
  args.bias = rows_in<float>(group.routers.bias).from(first);
}

template <typename R, typename M>
Ranged bound_mix(const PhaseOne& mix) {
  const RouterGroup& group = *mix.group;
  const auto pointers = std::make_shared<const SourcePointers<R>>(group.sources);
  kernels::MixFinished<R, M> args;
  set_sources(args, *pointers, group, mix.first, mix.count);
  args.logits = by_router(rows_out<float>(group.logits), mix.first, args.sources);
  args.peak = rows_out<float>(group.peak).from(mix.first);
  args.mass = rows_out<float>(group.mass).from(mix.first);
  args.mixed = grids<M>(group.mixed, group.mixed.size(0) > 1 ? mix.first : 0);
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

template <typename C>
kernels::PartWrite<C> pointers_of(const PartWrite& write) {
  return {rows_in<C>(write.u), write.part, rows_in<float>(write.before),
          rows_out<float>(write.after)};
}

kernels::Parts pointers_of(const RunningParts& parts) {
  kernels::Parts result;
  result.count = parts.count;
  for (size_t k = 0; k < parts.row.size(); ++k) result.rows[k] = rows_in<float>(parts.row[k]);
  return result;
}

Ranged bound(const BlockEnd& end) {
  Ranged result;
  with_type(end.type, [&]<typename C>() {
    kernels::FinishBlock<C> args;
    args.d = end.row[0].size(1);
    args.write = pointers_of<C>(end.write);
    args.parts = pointers_of(end.parts);
    args.sums = end.sums.count;
    args.norm_eps = number(end.eps.norm);
    args.matching_eps = number(end.eps.matching);
    for (size_t s = 0; s < static_cast<size_t>(args.sums); ++s) {
      args.form[s] = end.sums.form[s];
      args.rows[s] = rows_out<float>(end.row[s]);
      args.ratio[s] = out<float>(end.ratio[s]);
      args.inverse[s] = out<float>(end.inverse[s]);
    }
    const auto kernel = kernels::chosen_kernels().running->of<C>().finish_block;
    result = [=](int64_t begin, int64_t to) { kernel(args, begin, to); };
  });
  return result;
}

// Where the group keeps number `which` (dot, ratio, inverse) of a running source.
float* kept(const RouterGroup& group, int64_t router, int64_t source, int64_t which) {
  const int64_t sources = group.routers.running_bias.size(1);
  return row<float>(group.running, (router * sources + source) * 3 + which);
}

// What both directions of phase 2 are told of the reader.
template <typename Args, typename Read>
void set_reader(Args& args, const Read& read) {
  const RouterGroup& group = *read.group;
  args.parts = pointers_of(read.parts);
  args.running = read.sources.count;
  const float* bias = row_in<float>(group.routers.running_bias, read.router);
  for (int s = 0; s < args.running; ++s) {
    auto& source = args.sources[s];
    source.form = read.sources.form[static_cast<size_t>(s)];
    source.bias = bias[s];
    source.dot = kept(group, read.router, s, 0);
    source.ratio = kept(group, read.router, s, 1);
    source.inverse = kept(group, read.router, s, 2);
  }
  args.query = row_in<float>(group.routers.query, read.router);
}

template <typename C>
kernels::WriteRead<C> arguments(const RunningRead& read) {
  const RouterGroup& group = *read.group;
  kernels::WriteRead<C> args;
  args.d = group.mixed.size(2);
  args.write = pointers_of<C>(read.write);
  set_reader(args, read);
  args.peak = row_in<float>(group.peak, read.router);
  args.mass = row_in<float>(group.mass, read.router);
  args.mixed = grid_in<C>(group.mixed, group.mixed.size(0) > 1 ? read.router : 0);
  args.norm_eps = number(read.eps.norm);
  args.matching_eps = number(read.eps.matching);
  args.lse = row<float>(group.lse, read.router);
  args.gain = in<float>(read.gain);
  args.h = rows_out<C>(read.h);
  args.x = rows_out<C>(read.x);
  args.inverse_rms = out<float>(read.inverse_rms);
  return args;
}

Ranged bound(const RunningRead& read) {
  Ranged result;
  with_type(read.group->mixed.scalar_type(), [&]<typename C>() {
    const kernels::WriteRead<C> args = arguments<C>(read);
    const auto kernel = kernels::chosen_kernels().running->of<C>().write_read;
    result = [=](int64_t begin, int64_t end) { kernel(args, begin, end); };
  });
  return result;
}

template <typename C>
kernels::ReadBackward<C> arguments(const RunningReadBackward& read) {
  const RouterGroup& group = *read.group;
  kernels::ReadBackward<C> args;
  args.d = read.dx.size(-1);
  args.dx = rows_in<C>(read.dx);
  args.h = rows_in<C>(read.h);
  args.inverse_rms = in<float>(read.inverse_rms);
  args.gain = in<float>(read.gain);
  set_reader(args, read);
  for (size_t f = 0; f < read.forms.size(); ++f) {
    args.forms[f] = {rows_out<float>(read.forms[f].grad), rows_in<float>(read.forms[f].joined),
                     read.forms[f].sign};
  }
  args.lse = row_in<float>(group.lse, read.router);
  args.dh = grid<C>(group.dh, read.router);
  args.along = row<float>(group.along, read.router);
  args.du = rows_out<C>(read.du);
  return args;
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
    kernels::SourceScalars<R> args;
    args.d = row.size(1);
    args.row = rows_in<R>(row);
    args.summary = rows_in<R>(summary);
    args.norm_eps = number(eps.norm);
    args.matching_eps = number(eps.matching);
    args.ratio = out<float>(ratio);
    args.inverse = out<float>(inverse);
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
  std::vector<kernels::Grid<float>> grads;
  grads.reserve(mix.source_grads.size());
  for (const at::Tensor& grad : mix.source_grads) grads.push_back(rows_out<float>(grad));
  const auto first = std::make_unique<bool[]>(sources);
  std::fill_n(first.get(), sources, mix.sets);
  with_type(group.sources.rows[0].scalar_type(), [&]<typename R>() {
    with_type(group.dh.scalar_type(), [&]<typename M>() {
      const SourcePointers<R> pointers(group.sources);
      kernels::MixFinishedBackward<R, M> args;
      set_sources(args, pointers, group, mix.first, mix.count);
      args.logits = by_router(rows_in<float>(group.logits), mix.first, args.sources);
      args.lse = rows_in<float>(group.lse).from(mix.first);
      args.along = rows_in<float>(group.along).from(mix.first);
      args.dh = grids_in<M>(group.dh, mix.first);
      args.grads = grads.data();
      args.first = first.get();
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
    const kernels::ReadBackward<C> args = arguments<C>(read);
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
    kernels::UpdateGrad<C> args;
    args.d = d;
    for (const SignedGrad& grad : grads) {
      args.grads[args.sums] = rows_in<float>(grad.grad);
      args.sign[args.sums++] = grad.sign;
    }
    args.du = rows_out<C>(du);
    const auto kernel = kernels::chosen_kernels().running->of<C>().update_grad;
    for_chunks(du.numel() / d,
               [&](int64_t, int64_t begin, int64_t end) { kernel(args, begin, end); });
  });
}

}  // namespace wavroute::ops
