// What the sublayers of a model read and write on a text: sums over its tokens, by group.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "data/batches.h"
#include "inspect/token_groups.h"
#include "wavroute/decoder.h"

namespace wavroute {

// Rows of ReaderSums::sums. After them a row per source with its weight, and a row per source with
// the tokens of which it is the one that is read most.
enum ReaderFeature : int64_t {
  kLoss,      // of what is read, through the final norm and the head, nats
  kStream,    // root mean square of what is read, over channels
  kUpdate,    // of what is written
  kGradient,  // of the gradient of the text's summed loss by what is written
  kCosine,    // of what is read with what the next one reads
  kAge,       // sublayers since what is read was written: a mean weighted by |M|
  kEntropy,   // of a router's weights, nats
  kGate,      // mean over channels
  kFeatures
};

struct ReaderSums {
  std::vector<SourceLabel> sources;  // of its router; empty: it has none
  at::Tensor sums;                   // [kFeatures + 2 sources, groups] double
  std::vector<int64_t> gate_counts;  // gates by hundredths, 101 of them; empty: there is no gate
};

struct Inspection {
  std::vector<TokenGroup> groups;
  std::vector<Site> sites;          // M
  std::vector<ReaderSums> readers;  // M + 1, the read-out last
  at::Tensor counts;                // [groups] tokens
  at::Tensor depth;                 // [groups] layers until a token halts, summed; undefined: none
  std::vector<int64_t> depths;      // tokens that halt at layer 0, 1, ...
  at::Tensor mixing;                // [M + 1, M + 1] M summed over tokens, its mean over channels

  // The tokens of both. They are of one model, program and list of groups.
  void add(const Inspection& other);
};

struct InspectionOptions {
  const LayerProgram* program = nullptr;
  Progress progress = {};
};

// How often each id below `vocabulary` comes among the inputs of the windows: adds to `counts`.
void count_ids(const EvalWindows& windows, std::vector<int64_t>& counts);

// Window by window. Leaves the gradients of the model's parameters changed.
[[nodiscard]] Inspection inspect(Decoder& model, const EvalWindows& windows,
                                 const TokenGroups& groups, const InspectionOptions& options);

// {"tokens", "loss", "embedding_loss", "sublayers", "depth_mixing", "token_groups", "depth"}:
// docs/inspect.md has the keys.
[[nodiscard]] nlohmann::ordered_json to_json(const Inspection& inspection);

// The mean loss of the scored tokens, nats.
[[nodiscard]] double mean_loss(const Decoder& model, const EvalWindows& windows,
                               const InspectionOptions& options);

}  // namespace wavroute
