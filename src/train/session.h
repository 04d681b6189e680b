// From a configuration to everything a run works with: nothing is "auto" after this.
#pragma once

#include <memory>
#include <string>

#include "bench/machine.h"
#include "data/corpus.h"
#include "train/forecast.h"
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
  Forecast forecast;

  [[nodiscard]] int64_t tokens_per_step() const {
    return config.train.batch * config.model.context;
  }
};

// Resolves device, precision and threads for this machine, and sets libtorch's number of threads
// and, for a GPU, its choice of kernels to those that repeat their bits. UserError where a device
// was asked for that isn't there.
[[nodiscard]] Config resolve_machine(Config config, const Machine& machine);

// The processor or the GPU that a resolved configuration trains on, by its name.
[[nodiscard]] std::string device_name(const Config& config, const Machine& machine);

// The number of tokens that [data] is read in; opens the corpus where its text decides.
[[nodiscard]] int64_t vocabulary_of(const Config& config);

// What becomes of a memory plan that doesn't fit.
enum class BeyondMemory {
  kRefuse,  // UserError, with a micro_batch that does
  kGoOn,    // a resumed run keeps the micro_batch that it began with: the caller warns
};

// Opens the corpus, plans the memory, and makes a model that is not allocated. UserError for
// whatever the configuration gets wrong.
[[nodiscard]] Session plan_session(const Config& config, BeyondMemory beyond,
                                   const Machine& machine);
// The same on this machine, and the model has its initial values.
[[nodiscard]] Session open_session(const Config& config,
                                   BeyondMemory beyond = BeyondMemory::kRefuse);

// What a resumed run keeps: values that `given` leaves to the program are taken from `stored`.
[[nodiscard]] Config inherit_resolved(Config given, const Config& stored);
// UserError where `resumed` differs from `stored` in more than a resumed run may change. The text
// may lie elsewhere: that it is the same one is check_same_text's to say.
void check_resumable(const Config& stored, const Config& resumed);

}  // namespace wavroute
