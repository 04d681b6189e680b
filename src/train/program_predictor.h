// Fits the predictor of model/program_choice.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <span>
#include <vector>

#include "model/program_choice.h"

namespace wavroute {

// Texts that were scored under every program.
struct ProgramScores {
  at::Tensor features;  // double [texts, d] (prompt_features)
  at::Tensor losses;    // double [texts, programs], nats per token
};

struct ProgramFit {
  at::Tensor mean, scale;    // double [d]
  at::Tensor weights, bias;  // double [programs, d], [programs]
  double ridge = 0.0;        // the penalty that was chosen
  double price = 0.0;        // nats a layer
  double mean_layers = 0.0;  // of the choices, each text predicted without itself
};

// Ridge regression of each program's loss, relative to the mean over programs, on the standardised
// features. The penalty is the one whose leave-one-out predictions have the least squared error;
// the price is the least at which the leave-one-out choices run at most `most_layers` layers in the
// mean. `lengths`: executed layers of each program. At least two texts and one program of at most
// `most_layers`.
[[nodiscard]] ProgramFit fit_programs(const ProgramScores& scores, std::span<const int64_t> lengths,
                                      double most_layers);

}  // namespace wavroute
