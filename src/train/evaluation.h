// Validation loss, and the scheme's source weights, gates and depths on validation text.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "data/batches.h"
#include "model/program_choice.h"
#include "train/processes.h"
#include "wavroute/decoder.h"
#include "wavroute/tokenizer.h"

namespace wavroute {

struct Evaluation {
  double loss = 0.0;           // nats per token
  double bits_per_byte = 0.0;  // of the text
  double mean_depth = 0.0;     // layers per token, where tokens or windows differ; else 0
  int64_t tokens = 0;          // scored

  [[nodiscard]] bool is_finite() const;  // the loss
};

struct EvaluationOptions {
  Progress progress;
  const LayerProgram* program = nullptr;
  const ProgramChoice* choice = nullptr;  // of a program for each window; in place of `program`
  int64_t rows = 8;                       // windows per pass
  // Passes are shared out among these; the result is the one of a single process. Null: one.
  Processes* processes = nullptr;
  int64_t prompt = 0;  // > 0: this many tokens of each window are read into a cache, unscored
};

// Loss over all windows.
[[nodiscard]] Evaluation evaluate(const Decoder& model, const EvalWindows& windows,
                                  const Tokenizer& tokenizer, const EvaluationOptions& options);

// routing.json: the mean weight of every source at every sublayer, gates, halting depth, over the
// first windows (one pass). Null for a scheme without any of these.
[[nodiscard]] nlohmann::json routing_map(const Decoder& model, const EvalWindows& windows,
                                         const EvaluationOptions& options);

}  // namespace wavroute
