// Training a Decoder with an optimizer of your own: gradients of a batch, and the model on disk.
//
//   model.parameters().zero_grad();
//   BatchLoss loss = add_gradients(model, ids, targets);
//   for (FlatGroup& group : model.parameters().groups()) {
//     ...                                   // change group.value by group.grad
//   }
//   model.parameters().refresh_compute();   // the copies that products multiply
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>

#include "wavroute/choices.h"
#include "wavroute/decoder.h"
#include "wavroute/tokenizer.h"

namespace wavroute {

struct BatchLoss {
  double loss = 0.0;        // cross-entropy, nats per scored token
  double auxiliary = 0.0;   // the scheme's own term; 0 where it has none
  double mean_depth = 0.0;  // layers per token; 0 where every token goes through all
};

struct GradientOptions {
  Progress progress;    // gates that open in training follow it; {}: as a model that is loaded
  uint64_t seed = 1;    // of the run: which layers layerdrop leaves out
  double weight = 1.0;  // of the batch: 1 / n for the n parts of a batch
  Recompute recompute = Recompute::kNone;
};

// One pass forwards and backwards. Adds to the parameters' gradients those of
//   weight * (loss + auxiliary).
// ids, targets [B,T] int64 on the model's device, B and T at least 1; a target of -100 is not
// scored. UserError for other shapes or types, ids that the vocabulary does not have, and where no
// target is scored.
BatchLoss add_gradients(Decoder& model, const at::Tensor& ids, const at::Tensor& targets,
                        const GradientOptions& options = {});

// Makes `folder`, whole or not at all: config.json, model.safetensors in fp32 (fp64 for an fp64
// model) and tokenizer.json, which load_text_model(), the command and, for prenorm, `transformers`
// read. UserError where something is there already.
void save_model(const Decoder& model, const Tokenizer& tokenizer,
                const std::filesystem::path& folder, const Progress& progress = {});

}  // namespace wavroute
