// Write and read in the running block, phase 2, with the norm (method.md sections 3 to 5).
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <array>

#include "kernels/kernels.h"
#include "opbench/operator.h"
#include "ops/arena.h"
#include "ops/parallel.h"
#include "ops/typed.h"
#include "residual/router.h"

namespace wavroute::opbench {
namespace {

using ops::in;
using ops::out;

// S, phase and split, as in the second half of a block: four parts, see kernels/route.h. Composed,
// they are three sums.
constexpr int kSums = kernels::kMostRunning, kParts = kernels::kMostParts;
using Tensors = std::vector<at::Tensor>;
constexpr int kWritten = 1;                              // the part that the update goes to,
constexpr std::array<float, kSums> kSigns = {1, -1, 1};  // with these signs in the sums
constexpr float kBeta = -4.0F;

Tensors each(int count, const std::function<at::Tensor()>& make) {
  Tensors tensors;
  for (int i = 0; i < count; ++i) tensors.push_back(make());
  return tensors;
}

// One read of the running block, with all that it keeps for the backward.
struct Read {
  explicit Read(const Problem& p)
      : tokens(p.tokens),
        d(p.width),
        type(p.type),
        u(values({tokens, d}, type)),
        parts(each(kParts,
                   [&] {
                     return values({tokens, d});
                   })),
        written(at::empty({tokens, d})),
        sums(each(kSums,
                  [&] {
                    return values({tokens, d});
                  })),
        mixed(values({tokens, d}, type)),
        peak(at::rand({tokens})),
        mass(at::full({tokens}, 1.75)),
        query(values({d}) * 0.1),
        gain(at::ones({d})),
        bias(at::full({kSums - 1}, kBeta)),
        h(at::empty({tokens, d}, type)),
        x(at::empty({tokens, d}, type)),
        lse(at::empty({tokens})),
        inverse_rms(at::empty({tokens})),
        kept(at::empty({kSums, 3, tokens})) {}

  [[nodiscard]] float* kept_row(int sum, int row) const {
    return out<float>(kept) + (3 * sum + row) * tokens;
  }

  // The parts after the write.
  [[nodiscard]] kernels::Parts seen() const {
    kernels::Parts result;
    result.count = kParts;
    for (int k = 0; k < kParts; ++k) result.row[k] = in<float>(k == kWritten ? written : parts[k]);
    return result;
  }

  void run() const {
    ops::with_type(type, [&]<typename C>() {
      kernels::WriteRead<C> args;
      args.d = d, args.running = kSums;
      args.write = {in<C>(u), kWritten, in<float>(parts[kWritten]), out<float>(written)};
      args.parts = seen();
      for (int s = 0; s < kSums; ++s) {
        args.sources[s] = {.form = s,
                           .bias = s == 0 ? 0.0F : kBeta,
                           .dot = kept_row(s, 0),
                           .ratio = kept_row(s, 1),
                           .inverse = kept_row(s, 2)};
      }
      args.query = in<float>(query), args.mixed = in<C>(mixed);
      args.peak = in<float>(peak), args.mass = in<float>(mass);
      args.norm_eps = static_cast<float>(kNormEps);
      args.matching_eps = static_cast<float>(kMatchingEps);
      args.gain = in<float>(gain), args.lse = out<float>(lse), args.h = out<C>(h);
      args.x = out<C>(x), args.inverse_rms = out<float>(inverse_rms);
      const auto kernel = kernels::chosen_kernels().running->of<C>().write_read;
      ops::for_chunks(tokens,
                      [&](int64_t, int64_t begin, int64_t end) { kernel(args, begin, end); });
    });
  }

  // x of running sums and parameters that may be leaves of a graph.
  [[nodiscard]] at::Tensor composed(const Tensors& v, const at::Tensor& finished,
                                    const at::Tensor& w, const at::Tensor& beta,
                                    const at::Tensor& g) const {
    Tensors sources(kSums, v[0]);
    std::vector<at::Tensor> logits = {peak + mass.log()};
    for (int s = 0; s < kSums; ++s) {
      if (s > 0) sources[s] = v[s] * matching_ratio(v[s], v[0], kMatchingEps);
      const at::Tensor inverse = sources[s].square().mean(-1).add(kNormEps).rsqrt();
      const at::Tensor logit = at::matmul(sources[s], w) * inverse;
      logits.push_back(s == 0 ? logit : logit + beta[s - 1]);
    }
    const at::Tensor a = at::softmax(at::stack(logits), 0).unsqueeze(-1);
    at::Tensor mixture = a[0] / mass.unsqueeze(-1) * finished;
    for (int s = 0; s < kSums; ++s) mixture = at::addcmul(mixture, a[s + 1], sources[s]);
    return at::rms_norm(mixture, {d}, g, kNormEps).to(type);
  }

  void composed_run() const {
    const at::NoGradGuard no_grad;
    for (int s = 0; s < kSums; ++s) sums[s].add_(u, kSigns[s]);
    (void)composed(sums, mixed, query, bias, gain);
  }

  [[nodiscard]] std::string size() const {
    return fmt::format("{}, {} sums", rows_by_columns(tokens, d), kSums);
  }

  int64_t tokens, d;
  at::ScalarType type;
  at::Tensor u;                  // [tokens, d]
  Tensors parts;                 // [tokens, d], before the write
  at::Tensor written;            // [tokens, d]
  Tensors sums;                  // [tokens, d], of the composed form
  at::Tensor mixed, peak, mass;  // of phase 1: [tokens, d], [tokens], [tokens]
  at::Tensor query, gain, bias;  // [d], [d], [details]
  at::Tensor h, x;               // [tokens, d]
  at::Tensor lse, inverse_rms;   // [tokens]
  at::Tensor kept;               // [sums, 3, tokens]
};

// Its backward, ours.
struct Backward {
  Backward(const Read& read, ops::Arena& arena)
      : read(read),
        arena(arena),
        dx(values({read.tokens, read.d}, read.type)),
        dh(at::empty({read.tokens, read.d}, read.type)),
        along(at::empty({read.tokens})),
        du(at::empty({read.tokens, read.d}, read.type)),
        gain_grad(at::zeros({read.d})),
        grads(each(kSums, [&] {
          return at::zeros({read.tokens, read.d});
        })) {
    read.run();
  }

  void run() const {
    const int64_t chunks = ops::chunk_count(read.tokens);
    const ops::PartialSums gain_sums(arena, chunks, read.d);
    const ops::PartialSums query_sums(arena, chunks, read.d);
    const ops::PartialSums bias_sums(arena, chunks, kSums);
    ops::with_type(read.type, [&]<typename C>() {
      const kernels::ReadBackward<C> args = arguments<C>();
      const auto kernel = kernels::chosen_kernels().running->of<C>().read_backward;
      ops::for_chunks(read.tokens, [&](int64_t chunk, int64_t begin, int64_t end) {
        kernels::ReadBackward<C> own = args;
        own.gain_grad = gain_sums.of(chunk);
        own.query_grad = query_sums.of(chunk);
        for (int s = 1; s < kSums; ++s) own.sources[s].bias_grad = bias_sums.of(chunk) + s;
        kernel(own, begin, end);
      });
    });
    gain_sums.add_to(out<float>(gain_grad));
    (void)query_sums.total();
    (void)bias_sums.total();
  }

  template <typename C>
  [[nodiscard]] kernels::ReadBackward<C> arguments() const {
    kernels::ReadBackward<C> args;
    args.d = read.d, args.dx = in<C>(dx), args.h = in<C>(read.h);
    args.inverse_rms = in<float>(read.inverse_rms), args.gain = in<float>(read.gain);
    args.parts = read.seen(), args.running = kSums;
    for (int s = 0; s < kSums; ++s) {
      args.sources[s] = {.form = s,
                         .bias = s == 0 ? 0.0F : kBeta,
                         .dot = read.kept_row(s, 0),
                         .ratio = read.kept_row(s, 1),
                         .inverse = read.kept_row(s, 2)};
      args.forms[s] = {.grad = out<float>(grads[s]), .sign = kSigns[s]};
    }
    args.query = in<float>(read.query), args.lse = in<float>(read.lse);
    args.dh = out<C>(dh), args.along = out<float>(along), args.du = out<C>(du);
    return args;
  }

  const Read& read;
  ops::Arena& arena;
  at::Tensor dx, dh, along, du;
  at::Tensor gain_grad;
  Tensors grads;
};

// The same by autograd.
struct Graph {
  explicit Graph(const Read& read)
      : sums{leaf(read.sums[0]), leaf(read.sums[1]), leaf(read.sums[2])},
        leaves{sums[0],          sums[1],         sums[2],        leaf(read.mixed),
               leaf(read.query), leaf(read.bias), leaf(read.gain)},
        x(read.composed(sums, leaves[kSums], leaves[kSums + 1], leaves[kSums + 2],
                        leaves[kSums + 3])) {}

  void run(const Backward& shared) const {
    const auto grads = gradients({x}, leaves, {shared.dx});
    at::Tensor du;
    for (int s = 0; s < kSums; ++s) {
      shared.grads[s].add_(grads[static_cast<size_t>(s)]);
      du = s == 0 ? shared.grads[s] : at::add(du, shared.grads[s], kSigns[s]);
    }
    shared.gain_grad.add_(grads.back());
    (void)du.to(shared.read.type);
  }

  Tensors sums;
  std::vector<at::Tensor> leaves;  // the sums, phase 1's mixture, query, biases, gain
  at::Tensor x;
};

}  // namespace

void show_route_write_read(const Problem& p, const Visit& visit) {
  const Read r(p);
  visit({"forward",
         r.size(),
         {[&] { r.run(); }},
         {[&] { r.composed_run(); }},
         bytes_of(r.parts) + bytes_of({r.written, r.u, r.mixed, r.peak, r.mass, r.query, r.gain,
                                       r.h, r.x, r.lse, r.inverse_rms, r.kept})});
}

void show_route_read_backward(const Problem& p, const Visit& visit) {
  ops::Arena arena;
  const Read r(p);
  const Backward ours(r, arena);
  const Graph graph(r);
  // The gradients of the sums are read and written.
  visit({"backward",
         r.size(),
         {[&] { ours.run(); }},
         {[&] { graph.run(ours); }},
         bytes_of(r.parts) + 2 * bytes_of(ours.grads) +
             bytes_of({ours.dx, r.h, ours.dh, ours.du, ours.along, r.lse, r.inverse_rms, r.kept,
                       r.query, r.query, r.gain, ours.gain_grad})});
}

}  // namespace wavroute::opbench
