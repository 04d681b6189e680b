// The PyTorch baseline of `wavroute bench step`: where it is, and which Python can run it.
// Torch-free.
#pragma once

#include <filesystem>
#include <string>

namespace wavroute {

struct PyTorch {
  std::string python;            // an interpreter: a path, or "python3"
  std::string python_version;    // empty where it can't be run
  std::string torch_version;     // empty where that Python has no torch
  std::filesystem::path script;  // bench/baseline.py; empty where it was not found

  // Why the baseline can't be run, one sentence; empty if it can.
  [[nodiscard]] std::string missing() const;
};

// The interpreter: $WAVROUTE_PYTHON, else .venv/bin/python beside the build folder, else python3.
// The script: $WAVROUTE_BASELINE, else bench/baseline.py beside the build folder.
// `executable` is the running program, BUILD/bin/wavroute.
[[nodiscard]] PyTorch find_pytorch(const std::filesystem::path& executable);

}  // namespace wavroute
