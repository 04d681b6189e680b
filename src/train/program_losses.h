// The loss of a model under layer programs, sequence by sequence.
#pragma once

#include <vector>

#include "train/batch.h"
#include "wavroute/decoder.h"

namespace wavroute {

// Nats per token of each sequence over its tokens after the first `prompt` ones. The program runs
// with a cache, on our kernels where they serve, so that a layer that is left out costs nothing.
// Where a target is EvalWindows::kIgnored it is not counted; every sequence has at least one other.
[[nodiscard]] std::vector<double> program_losses(const Decoder& model, const Batch& batch,
                                                 const LayerProgram& program, int64_t prompt);

}  // namespace wavroute
