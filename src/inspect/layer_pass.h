// One pass over a batch that keeps what every sublayer read and wrote.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "residual/coefficients.h"
#include "wavroute/decoder.h"

namespace wavroute {

// The executed sublayers of a program, all layers once where it is null.
[[nodiscard]] std::vector<Site> sites_of(const Decoder& model, const LayerProgram* program);
// "attention 0", "mlp 0", ...; from its second execution on "mlp 12 (2)".
[[nodiscard]] std::vector<std::string> names_of(const std::vector<Site>& sites);

// What taps told of one read and of the write after it.
struct ReaderTaps {
  std::vector<SourceLabel> sources;
  at::Tensor weights;  // [sources, B, T]; undefined: the scheme has no routers
  at::Tensor gate;     // [B, T, 1 or d]; undefined: none
};

// Of M sublayers. Reader i < M is sublayer i + 1 of docs/method.md, reader M the read-out.
struct LayerPass {
  std::vector<at::Tensor> reads;      // h [B,T,d], M + 1
  std::vector<at::Tensor> updates;    // u [B,T,d], M
  std::vector<at::Tensor> gradients;  // of the summed loss by u [B,T,d], M; empty: not wanted
  std::vector<ReaderTaps> taps;       // M + 1
  at::Tensor depth;                   // [B, T] where tokens halt; undefined: nowhere
  Coefficients coefficients;
};

struct LayerPassOptions {
  const LayerProgram* program = nullptr;
  Progress progress = {};
  // Targets [B,T] int64, -100 where none: `gradients` are computed. This adds to the gradients of
  // the model's parameters, which mean nothing afterwards.
  at::Tensor targets = {};
};

// ids [B,T] int64 on the model's device. Runs on stock operators, without dropped layers.
[[nodiscard]] LayerPass run_layers(Decoder& model, const at::Tensor& ids,
                                   const LayerPassOptions& options);

// What a read h [B,T,d] gives through the final norm and the head: the cross-entropy of every token
// [B,T] in nats, 0 where there is no target.
[[nodiscard]] at::Tensor losses_after(const Decoder& model, const at::Tensor& h,
                                      const at::Tensor& targets);

}  // namespace wavroute
