// From a configuration to everything a run works with: nothing is "auto" after this.
#pragma once

#include <memory>

#include "bench/machine.h"
#include "data/corpus.h"
#include "model/cost.h"
#include "wavroute/config.h"
#include "wavroute/decoder.h"

namespace wavroute {

struct Session {
  Config config;  // resolved: every value that said auto or 0 is spelled out
  Machine machine;
  Corpus corpus;
  Precision precision = Precision::kFp32;
  Recompute recompute = Recompute::kNone;
  std::unique_ptr<Decoder> model;
  MemoryPlan plan;
  double flops_per_token = 0.0;  // forward and backward

  [[nodiscard]] int64_t tokens_per_step() const {
    return config.train.batch * config.model.context;
  }
};

// Resolves device, precision and threads for this machine, and sets libtorch's number of threads.
// UserError where a device was asked for that isn't there.
[[nodiscard]] Config resolve_machine(Config config, const Machine& machine);

// The device that a resolved configuration names.
[[nodiscard]] at::Device device_of(const Config& config);

// Opens the corpus, builds the model with its initial values, and plans the memory. UserError for
// whatever the configuration gets wrong, and for a plan that doesn't fit, with a micro_batch that
// does.
[[nodiscard]] Session open_session(const Config& config);

// What a resumed run keeps: values that `given` leaves to the program are taken from `stored`.
[[nodiscard]] Config inherit_resolved(Config given, const Config& stored);
// UserError where `resumed` differs from `stored` in more than a resumed run may change.
void check_resumable(const Config& stored, const Config& resumed);

}  // namespace wavroute
