// The cost of training, computed from a configuration before anything large is allocated.
#pragma once

#include <cstdint>
#include <string>

#include "base/machine.h"
#include "model/cost.h"
#include "wavroute/config.h"
#include "wavroute/decoder.h"
#include "wavroute/error.h"

namespace wavroute {

struct Forecast {
  ops::BackendKind backend = ops::BackendKind::kComposed;  // of training and evaluation
  std::string backend_words;                               // the same in words
  int64_t parameters = 0;
  double flops_per_token = 0.0;     // forward and backward
  double available = 0.0;           // bytes that a plan may take, of the model's device
  int64_t largest_micro_batch = 0;  // the largest divisor of the batch that fits; 0: none does
  int64_t micro_batch = 1;          // the configured one, or the largest that fits
  MemoryPlan memory;                // with it

  [[nodiscard]] bool fits() const { return memory.total() <= available; }
};

// The model that a configuration describes, with a vocabulary of `vocab_size` tokens.
[[nodiscard]] DecoderSpec decoder_spec(const Config& config, int64_t vocab_size);
// The device that a resolved configuration names.
[[nodiscard]] at::Device device_of(const Config& config);

// Bytes that the models of a resolved configuration may take together.
[[nodiscard]] uint64_t usable_memory(const Config& config, const Machine& machine);

// How `config` trains the model, with a micro-batch of one row.
[[nodiscard]] TrainingShape training_shape(const Decoder& model, const Config& config,
                                           int64_t valid_tokens = INT64_MAX);

// Of a model that need not be allocated. `config` is resolved but for micro_batch and what belongs
// to the scheme. `valid_tokens` (at least 2): of the validation text, where that is known.
[[nodiscard]] Forecast forecast(const Decoder& model, const Config& config, const Machine& machine,
                                int64_t valid_tokens = INT64_MAX);
// The same of the model that `config` describes. UserError where it describes none.
[[nodiscard]] Forecast forecast(const Config& config, int64_t vocab_size, const Machine& machine,
                                int64_t valid_tokens = INT64_MAX);

// The error for a forecast that doesn't fit; it names a micro_batch that does.
[[nodiscard]] UserError beyond_memory(const Forecast& forecast);

// An estimate of the seconds of a step, where none was tried, if matrix products reach `peak`
// [FLOP/s].
[[nodiscard]] double expected_step_seconds(const Forecast& forecast, const Config& config,
                                           double peak);
// The lines of --dry-run: back end, parameters, FLOPs per token, memory plan.
[[nodiscard]] std::string forecast_text(const Forecast& forecast);

}  // namespace wavroute
