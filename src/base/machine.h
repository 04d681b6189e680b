// What this process may use of the machine: cores and memory under the limits of its control
// group, and what the processor can do. Torch-free.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace wavroute {

struct Machine {
  std::string cpu_model;                      // as the kernel names it, or "unknown"
  std::vector<std::string> instruction_sets;  // those that matter here: "avx2", "avx512_bf16", ...
  std::vector<std::string> gpus;              // NVIDIA's, as the driver names them
  int cores = 1;                              // threads that can run at once: affinity and quota
  uint64_t memory_total = 0;                  // bytes: the machine's, or the group's limit if less
  uint64_t memory_available = 0;              // bytes that can be taken now without swapping

  [[nodiscard]] bool has(const std::string& instruction_set) const;
  // Whether the processor multiplies bf16 natively: precision = "auto" depends on it.
  [[nodiscard]] bool has_fast_bf16() const;
};

// Reads /proc and /sys under `root` (other than "/" in tests). A file that is missing means "no
// limit" or "unknown", never an error.
[[nodiscard]] Machine probe_machine(const std::filesystem::path& root = "/");

}  // namespace wavroute
