// What all processes of a training must have in common.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "train/processes.h"
#include "train/session.h"
#include "wavroute/config.h"

namespace wavroute::app {

// Names and values.
using Facts = std::vector<std::pair<std::string, std::string>>;

// UserError, in every process, where the processes have another configuration (paths and threads
// may differ), another wavroute, or others of `facts`: it names the keys.
void check_same_start(Processes& processes, const Config& config, const Facts& facts);
// The same for the text and the tokenizer, whatever their paths.
void check_same_text(Processes& processes, const Session& session);

// The first process' choice of what "auto" leaves to the machine: device, precision, kernels.
[[nodiscard]] Config with_same_machine(Processes& processes, const Config& config,
                                       const Machine& machine);
// The least of all processes' micro_batch: what they plan depends on their free memory.
[[nodiscard]] int64_t common_micro_batch(Processes& processes, int64_t micro_batch);

}  // namespace wavroute::app
