// Adaptive computation time from its formula (docs/method.md section 2), for tests.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <string>
#include <vector>

#include "model/sublayer.h"
#include "tests/model/small_model.h"

namespace wavroute::testing {

struct Halting {
  at::Tensor depth;                    // N [B,T]
  at::Tensor remainder;                // R [B,T]
  at::Tensor output;                   // sum_{n<N} p_n s_n + R s_N [B,T,d]
  at::Tensor margin;                   // [B,T] distance of the running sums of p from the threshold
  std::vector<at::Tensor> left_out;    // per layer [n]: the tokens that its sublayers may skip
  std::vector<at::Tensor> has_halted;  // per layer [n]: those that halted before it
};

// From the states s_n that the sublayers of a model with halting units read and leave.
inline Halting halting_of(const Decoder& model, const at::Tensor& ids) {
  const at::NoGradGuard no_grad;
  const NamedTensors values = values_of(model);
  const double threshold = 1.0 - std::get<double>(model.spec().options.at("epsilon"));
  const int64_t layers = model.spec().model.layers;
  const std::unique_ptr<Stream> stream = model.residual().open(on_backend(model.backend()));
  stream->begin(embedded(model, ids));
  at::Tensor sum = at::zeros(ids.sizes(), at::kDouble);
  at::Tensor running = at::ones(ids.sizes(), at::kBool);
  Halting result{at::zeros_like(sum),
                 at::zeros_like(sum),
                 at::zeros_like(stream->read({})),
                 at::ones_like(sum),
                 {},
                 {}};
  for (int64_t layer = 0; layer < layers; ++layer) {
    const at::Tensor rows = stream->running_rows();
    const at::Tensor all = at::ones({ids.numel()}, at::kBool);
    result.left_out.push_back(
        (rows.defined() ? all.index_fill(0, rows, 0) : all.logical_not()).nonzero().flatten());
    result.has_halted.push_back(running.logical_not().flatten().nonzero().flatten());
    for (const SublayerKind kind : {SublayerKind::kAttention, SublayerKind::kMlp}) {
      const Site site{layer, kind, layer};
      const Sublayer& f = model.sublayer(site);
      stream->write(site, f.run(stream->read_normed(site, f.norm()), model.backend(), nullptr, {}));
    }
    const at::Tensor state = stream->read({});  // of a scheme that reads its state at every site
    at::Tensor stops = running, weight = 1.0 - sum;
    if (layer + 1 < layers) {
      const std::string unit =
          "model.layers." + std::to_string(model.residual().stored_layer(layer)) + ".halt.";
      const at::Tensor p =
          at::sigmoid(at::matmul(state, values.at(unit + "weight")[0]) + values.at(unit + "bias"));
      stops = running.logical_and((sum + p).ge(threshold));
      weight = at::where(stops, 1.0 - sum, p);
      result.margin = at::where(running, at::minimum(result.margin, (sum + p - threshold).abs()),
                                result.margin);
      sum = sum + p;
    }
    result.output = result.output + (running * weight).unsqueeze(-1) * state;
    result.depth = at::where(stops, layer + 1.0, result.depth);
    result.remainder = at::where(stops, weight, result.remainder);
    running = running.logical_and(stops.logical_not());
  }
  return result;
}

}  // namespace wavroute::testing
