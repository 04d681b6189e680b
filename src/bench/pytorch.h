// The PyTorch baseline of `wavroute bench step`: where it is, and which Python can run it.
// Torch-free.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "wavroute/config.h"

namespace wavroute {

struct PyTorch {
  std::string python;            // an interpreter: a path, or "python3"
  std::string python_version;    // empty where it can't be run
  std::string torch_version;     // empty where that Python has no torch
  std::filesystem::path script;  // bench/baseline.py; empty where it was not found

  // Why the baseline can't be run, one sentence; empty if it can.
  [[nodiscard]] std::string missing() const;
};

// The interpreter: find_python (io/python.h).
// The script: $WAVROUTE_BASELINE, else bench/baseline.py beside the build folder.
// `executable` is the running program, BUILD/bin/wavroute.
[[nodiscard]] PyTorch find_pytorch(const std::filesystem::path& executable);

// What the baseline supports: the answer to `baseline.py --supports`.
struct BaselineSupport {
  struct Scheme {
    std::vector<std::string> options;  // of [residual], each a flag of the baseline
    int64_t sources_per_block = 0;     // that a router reads; 0: the scheme has none
  };
  std::map<std::string, Scheme> schemes;

  // Why the baseline has nothing that does the same work, one sentence; empty if it has.
  [[nodiscard]] std::string missing(const Config& config) const;
};

// Asks the baseline; nothing may be missing(). Throws Failure if it doesn't answer.
[[nodiscard]] BaselineSupport ask_baseline(const PyTorch& pytorch);

// The options of a scheme as flags of the baseline: "--blocks=6", "--no-partial-details". Options
// that are "auto" are left out: the baseline has the same rules.
[[nodiscard]] std::vector<std::string> baseline_flags(const Options& options);

}  // namespace wavroute
