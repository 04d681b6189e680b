// The child processes of `wavroute bench step`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace wavroute::app {

// Serves the worker protocol of src/bench/step_bench.h on standard input and output with the model
// of a configuration over a vocabulary of `vocab_size` random tokens. `sets`: "section.key=value".
// Returns the exit code of the process.
int run_bench_worker(const std::string& config, const std::vector<std::string>& sets,
                     int64_t vocab_size);

}  // namespace wavroute::app
