// Write and read in the running block, phase 2, with the norm (method.md sections 3 to 5).
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <array>

#include "functional/composed.h"
#include "opbench/operator.h"
#include "ops/arena.h"
#include "ops/route.h"

namespace wavroute::opbench {
namespace {

// S, phase and split, as in the second half of a block: four parts, of which one is written.
constexpr int kSums = ops::kMostRunning, kParts = ops::kMostParts, kWritten = 1;
constexpr std::array<int64_t, kSums> kForms = {0, 1, 2};
constexpr float kBeta = -4.0F;

// One read of the running block, with everything kept for the backward.
struct Read {
  explicit Read(const Problem& p) : tokens(p.tokens), d(p.width), type(p.type) {
    const auto rows = [&](at::ScalarType of) { return values({1, tokens, d}, of); };
    const auto numbers = [&](int64_t count) { return at::empty({count, tokens}); };
    group.routers.query = values({1, d}) * 0.1;
    group.routers.running_bias = at::full({1, kSums}, kBeta);
    group.routers.running_bias.select(1, 0).zero_();
    group.mixed = rows(type);
    group.peak = at::rand({1, tokens});
    group.mass = at::full({1, tokens}, 1.75);
    group.lse = numbers(1);
    group.running = numbers(3 * kSums);
    group.dh = rows(type);
    group.along = numbers(1);
    read.group = &group;
    read.parts.count = kParts;
    for (at::Tensor& part : read.parts.row) part = values({tokens, d});
    read.write = {values({tokens, d}, type), kWritten, read.parts.row[kWritten],
                  at::empty({tokens, d})};
    read.sources = {kSums, {0, 1, 2}};
    read.eps = {kNormEps, kMatchingEps};
    read.gain = at::ones({d});
    read.h = at::empty({tokens, d}, type);
    read.x = at::empty({tokens, d}, type);
    read.inverse_rms = at::empty({tokens});
  }
  Read(const Read&) = delete;
  Read& operator=(const Read&) = delete;

  [[nodiscard]] Tensors run() const {
    ops::read(read);
    return {read.write.after, read.x, group.lse};
  }

  // Leaves may stand for what the graph is to reach: u, mixed, query, bias, gain.
  using Arguments = std::array<at::Tensor, 5>;
  [[nodiscard]] Arguments arguments() const {
    return {read.write.u, group.mixed[0].to(at::kFloat), group.routers.query[0],
            group.routers.running_bias[0], read.gain};
  }
  [[nodiscard]] Tensors composed(const Arguments& with) const {
    functional::composed::OptionalTensors parts;
    for (const at::Tensor& part : read.parts.row) parts.push_back(part);
    const auto [part, x, h, inverse_rms, lse, running] = functional::composed::route_read(
        with[0], kWritten, parts, kForms, with[1], group.peak[0], group.mass[0], with[2], with[3],
        with[4], kNormEps, kMatchingEps, type);
    return {part, x, lse};
  }

  [[nodiscard]] std::string size() const {
    return fmt::format("{}, {} sums", rows_by_columns(tokens, d), kSums);
  }
  [[nodiscard]] double part_bytes() const {
    return bytes_of({read.parts.row.begin(), read.parts.row.end()});
  }

  int64_t tokens, d;
  at::ScalarType type;
  ops::RouterGroup group;
  ops::RunningRead read;
};

// Its backward, ours and by autograd.
struct Backward {
  explicit Backward(const Read& of) : forward(of) {
    (void)forward.run();
    const ops::RunningRead& seen = forward.read;
    read.group = &forward.group;
    read.parts = seen.parts;
    read.parts.row[kWritten] = seen.write.after;
    read.sources = seen.sources;
    for (size_t f = 0; f < read.forms.size(); ++f) {
      read.forms[f] = {at::zeros({forward.tokens, forward.d}),
                       {},
                       ops::sign_of(static_cast<int64_t>(f), kWritten)};
    }
    read.dx = values({forward.tokens, forward.d}, forward.type);
    read.h = seen.h;
    read.inverse_rms = seen.inverse_rms;
    read.gain = seen.gain;
    read.du = at::empty({forward.tokens, forward.d}, forward.type);
    read.gain_grad = at::zeros({forward.d});
    read.query_grad = at::zeros({forward.d});
    read.bias_grad = at::zeros({kSums});
    leaves = forward.arguments();
    for (at::Tensor& argument : leaves) argument = leaf(argument);
    output = forward.composed(leaves)[1];
  }
  Backward(const Backward&) = delete;
  Backward& operator=(const Backward&) = delete;

  void clear() const {
    for (const ops::FormGrad& form : read.forms) at::Tensor(form.grad).zero_();
    for (const at::Tensor& sums : {read.gain_grad, read.query_grad, read.bias_grad}) {
      at::Tensor(sums).zero_();
    }
  }
  [[nodiscard]] Tensors run(ops::Arena& arena) const {
    ops::read_backward(arena, read);
    return {read.du, read.query_grad, read.bias_grad, read.gain_grad};
  }
  // Of u, mixed, query, bias and gain. The parts' gradients are that of u with a sign.
  [[nodiscard]] Tensors composed_run() const {
    const Tensors made = gradients({output}, {leaves.begin(), leaves.end()}, {read.dx});
    return {made[0], made[2], made[3], made[4]};
  }

  const Read& forward;
  ops::RunningReadBackward read;
  Read::Arguments leaves;
  at::Tensor output;  // x
};

}  // namespace

void show_route_write_read(const Problem& p, const Visit& visit) {
  const Read r(p);
  const ops::RouterGroup& group = r.group;
  visit({"forward",
         r.size(),
         {[&] { return r.run(); }},
         {[&] {
           const at::NoGradGuard no_grad;
           return r.composed(r.arguments());
         }},
         r.part_bytes() + bytes_of({r.read.write.after, r.read.write.u, group.mixed, group.peak,
                                    group.mass, group.routers.query, r.read.gain, r.read.h,
                                    r.read.x, group.lse, r.read.inverse_rms, group.running})});
}

void show_route_read_backward(const Problem& p, const Visit& visit) {
  ops::Arena arena;
  const Read r(p);
  const Backward b(r);
  double form_bytes = 0;
  for (const ops::FormGrad& form : b.read.forms) form_bytes += bytes_of({form.grad});
  // The gradients of the forms are read and written.
  visit({"backward",
         r.size(),
         {[&] { return b.run(arena); }, [&] { b.clear(); }},
         {[&] { return b.composed_run(); }, [&] { b.clear(); }},
         r.part_bytes() + 2 * form_bytes +
             bytes_of({b.read.dx, b.read.h, r.group.dh, b.read.du, r.group.along, r.group.lse,
                       b.read.inverse_rms, r.group.running, r.group.routers.query,
                       b.read.query_grad, b.read.gain, b.read.gain_grad})});
}

}  // namespace wavroute::opbench
