// Turns a configuration into everything a run works with: nothing is "auto" afterwards.
#pragma once

#include <memory>
#include <string>

#include "base/machine.h"
#include "data/corpus.h"
#include "io/companions.h"
#include "train/forecast.h"
#include "wavroute/config.h"
#include "wavroute/decoder.h"

namespace wavroute {

struct Session {
  Config config;  // resolved: every value that said auto or 0 is spelled out
  Machine machine;
  Corpus corpus;
  std::unique_ptr<Decoder> model;
  Forecast forecast;
  std::string init_sha256;  // of the weights that training started from; empty: drawn from the seed
  Companions companions;    // of the model that training started from

  [[nodiscard]] int64_t tokens_per_step() const {
    return config.train.batch * config.model.context;
  }
};

// Resolves device, precision and threads for this machine, and sets libtorch's number of threads
// and, for a GPU, its kernels to deterministic ones. UserError for a requested device that isn't
// there.
[[nodiscard]] Config resolve_machine(Config config, const Machine& machine);

// The processor or the GPU that a resolved configuration trains on, by its name.
[[nodiscard]] std::string device_name(const Config& config, const Machine& machine);

// The size of the vocabulary that [data] is read in; opens the corpus if it depends on the text.
[[nodiscard]] int64_t vocabulary_of(const Config& config);

// What to do with a memory plan that doesn't fit.
enum class BeyondMemory {
  kRefuse,  // UserError, with a micro_batch that does
  kGoOn,    // a resumed run keeps its micro_batch: the caller warns
};

// Opens the corpus, plans the memory, and makes a model that is not allocated. UserError for
// anything wrong in the configuration.
[[nodiscard]] Session plan_session(const Config& config, BeyondMemory beyond,
                                   const Machine& machine);
// The same on this machine, and the model has its initial values.
[[nodiscard]] Session open_session(const Config& config,
                                   BeyondMemory beyond = BeyondMemory::kRefuse,
                                   const Machine& machine = probe_machine());

// The configuration of a resumed run: values that `given` leaves to the program are taken from
// `stored`.
[[nodiscard]] Config inherit_resolved(Config given, const Config& stored);
// UserError where `resumed` differs from `stored` in more than a resumed run may change. The text
// may have another path: check_same_text decides whether it is the same.
void check_resumable(const Config& stored, const Config& resumed);

}  // namespace wavroute
