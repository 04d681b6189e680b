// The arguments of the routing kernels (kernels/route.h) from ops/route.h's, for kernels of any
// device. Partial sums, and the biases of running sources, are the caller's to set.
#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <type_traits>
#include <vector>

#include "ops/route.h"
#include "ops/typed.h"

namespace wavroute::ops {

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
kernels::Grid<T> grid_out(const at::Tensor& of, int64_t index) {
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
kernels::Grids<T> grids_out(const at::Tensor& of, int64_t first) {
  return {grid_out<T>(of, first).at, of.stride(0), of.stride(1)};
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

inline float number(double x) { return static_cast<float>(x); }

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
kernels::MixFinished<R, M> arguments(const PhaseOne& mix, const SourcePointers<R>& pointers) {
  const RouterGroup& group = *mix.group;
  kernels::MixFinished<R, M> args;
  set_sources(args, pointers, group, mix.first, mix.count);
  args.logits = by_router(rows_out<float>(group.logits), mix.first, args.sources);
  args.peak = rows_out<float>(group.peak).from(mix.first);
  args.mass = rows_out<float>(group.mass).from(mix.first);
  args.mixed = grids_out<M>(group.mixed, group.mixed.size(0) > 1 ? mix.first : 0);
  return args;
}

// Where the gradients of the finished sources go.
struct SourceGradPointers {
  explicit SourceGradPointers(const PhaseOneBackward& mix)
      : first(std::make_unique<bool[]>(mix.source_grads.size())) {
    grads.reserve(mix.source_grads.size());
    for (const at::Tensor& grad : mix.source_grads) grads.push_back(rows_out<float>(grad));
    std::fill_n(first.get(), grads.size(), mix.sets);
  }
  std::vector<kernels::Grid<float>> grads;
  std::unique_ptr<bool[]> first;
};
template <typename R, typename M>
kernels::MixFinishedBackward<R, M> arguments(const PhaseOneBackward& mix,
                                             const SourcePointers<R>& pointers,
                                             const SourceGradPointers& grads) {
  const RouterGroup& group = *mix.group;
  kernels::MixFinishedBackward<R, M> args;
  set_sources(args, pointers, group, mix.first, mix.count);
  args.logits = by_router(rows_in<float>(group.logits), mix.first, args.sources);
  args.lse = rows_in<float>(group.lse).from(mix.first);
  args.along = rows_in<float>(group.along).from(mix.first);
  args.dh = grids_in<M>(group.dh, mix.first);
  args.grads = grads.grads.data();
  args.first = grads.first.get();
  return args;
}

template <typename R>
kernels::SourceScalars<R> arguments(const at::Tensor& row, const at::Tensor& summary,
                                    const RouteEps& eps, const at::Tensor& ratio,
                                    const at::Tensor& inverse) {
  kernels::SourceScalars<R> args;
  args.d = row.size(1);
  args.row = rows_in<R>(row);
  args.summary = rows_in<R>(summary);
  args.norm_eps = number(eps.norm);
  args.matching_eps = number(eps.matching);
  args.ratio = out<float>(ratio);
  args.inverse = out<float>(inverse);
  return args;
}

template <typename C>
kernels::PartWrite<C> pointers_of(const PartWrite& write) {
  return {rows_in<C>(write.u), write.part, rows_in<float>(write.before),
          rows_out<float>(write.after)};
}

inline kernels::Parts pointers_of(const RunningParts& parts) {
  kernels::Parts result;
  result.count = parts.count;
  for (size_t k = 0; k < parts.row.size(); ++k) result.rows[k] = rows_in<float>(parts.row[k]);
  return result;
}

template <typename C>
kernels::FinishBlock<C> arguments(const BlockEnd& end) {
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
  return args;
}

// Where the group keeps number `which` (dot, ratio, inverse) of a running source.
inline float* kept(const RouterGroup& group, int64_t router, int64_t source, int64_t which) {
  const int64_t sources = group.routers.running_bias.size(1);
  return row<float>(group.running, (router * sources + source) * 3 + which);
}

// What both directions of phase 2 are told of the reader.
template <typename Args, typename Read>
void set_reader(Args& args, const Read& read) {
  const RouterGroup& group = *read.group;
  args.parts = pointers_of(read.parts);
  args.running = read.sources.count;
  for (int s = 0; s < args.running; ++s) {
    auto& source = args.sources[s];
    source.form = read.sources.form[static_cast<size_t>(s)];
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
  args.dh = grid_out<C>(group.dh, read.router);
  args.along = row<float>(group.along, read.router);
  args.du = rows_out<C>(read.du);
  return args;
}

template <typename C>
kernels::UpdateGrad<C> arguments(std::span<const SignedGrad> grads, const at::Tensor& du) {
  kernels::UpdateGrad<C> args;
  args.d = du.size(-1);
  for (const SignedGrad& grad : grads) {
    args.grads[args.sums] = rows_in<float>(grad.grad);
    args.sign[args.sums++] = grad.sign;
  }
  args.du = rows_out<C>(du);
  return args;
}

}  // namespace wavroute::ops
