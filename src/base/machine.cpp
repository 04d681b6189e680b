#include "base/machine.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <string_view>
#include <system_error>

#include "base/affinity.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;

// As Linux spells them in /proc/cpuinfo, x86 first, then Arm.
constexpr std::array<std::string_view, 15> kInstructionSets = {
    "avx2",        "fma",         "f16c",        "avx512f",  "avx512vl",
    "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16",
    "asimd",       "sve",         "sve2",        "bf16",     "i8mm"};

std::string read_text(const fs::path& file) {
  std::ifstream in(file);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

// The first number of a file; nothing for a missing file and for "max".
std::optional<double> read_number(const fs::path& file) {
  std::ifstream in(file);
  double value = 0;
  if (in >> value) return value;
  return std::nullopt;
}

// The number after `key` in a file of lines "key value" or "key: value kB"; 0 if absent.
uint64_t read_field(const fs::path& file, std::string_view key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string name, unit;
    uint64_t value = 0;
    if (!(words >> name >> value)) continue;
    if (name.ends_with(':')) name.pop_back();
    if (name == key) return words >> unit && unit == "kB" ? value * 1024 : value;
  }
  return 0;
}

struct ControlGroup {
  fs::path folder;
  bool unified = false;  // version 2
};

// The folders that can limit `controller` ("memory", "cpu"): the group of this process and all
// groups above it. Inside a container the path that /proc names may not exist in /sys; its
// ancestors, up to the mount, then still do.
std::vector<ControlGroup> control_groups(const fs::path& root, std::string_view controller) {
  std::vector<ControlGroup> groups;
  std::istringstream lines(read_text(root / "proc/self/cgroup"));
  for (std::string line; std::getline(lines, line);) {  // "4:memory:/path", "0::/path"
    const auto first = line.find(':');
    const auto second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool unified = controllers.empty();
    const bool named =
        fmt::format(",{},", controllers).find(fmt::format(",{},", controller)) != std::string::npos;
    if (!unified && !named) continue;
    const fs::path mount = root / "sys/fs/cgroup" / (unified ? "" : controller);
    fs::path below = fs::path(line.substr(second + 1)).relative_path();
    for (;; below = below.parent_path()) {
      groups.push_back({mount / below, unified});
      if (below.empty()) break;
    }
  }
  return groups;
}

// Whole threads that the tightest quota lets run at once: rounded down, but at least one.
int quota_cores(const fs::path& root) {
  double cores = std::numeric_limits<int>::max();
  for (const auto& [folder, unified] : control_groups(root, "cpu")) {
    std::optional<double> quota, period;
    if (unified) {
      std::ifstream in(folder / "cpu.max");  // "max 100000" or "150000 100000"
      double q = 0, p = 0;
      if (in >> q >> p) quota = q, period = p;
    } else {
      quota = read_number(folder / "cpu.cfs_quota_us");  // -1: none
      period = read_number(folder / "cpu.cfs_period_us");
    }
    if (quota && period && *quota > 0 && *period > 0) cores = std::min(cores, *quota / *period);
  }
  return std::max(1, static_cast<int>(cores));
}

void probe_memory(const fs::path& root, Machine& machine) {
  machine.memory_total = read_field(root / "proc/meminfo", "MemTotal");
  machine.memory_available = read_field(root / "proc/meminfo", "MemAvailable");
  for (const auto& [folder, unified] : control_groups(root, "memory")) {
    const auto limit = read_number(folder / (unified ? "memory.max" : "memory.limit_in_bytes"));
    // Version 1 says "no limit" with a number near 2^63.
    if (!limit || *limit >= static_cast<double>(machine.memory_total)) continue;
    const auto used =
        read_number(folder / (unified ? "memory.current" : "memory.usage_in_bytes")).value_or(0);
    // The page cache counts as used, but is freed on demand.
    const auto cache = static_cast<double>(
        read_field(folder / "memory.stat", unified ? "inactive_file" : "total_inactive_file"));
    const double free = std::clamp(*limit - used + cache, 0.0, *limit);
    machine.memory_total = std::min(machine.memory_total, static_cast<uint64_t>(*limit));
    machine.memory_available = std::min(machine.memory_available, static_cast<uint64_t>(free));
  }
}

void probe_processor(const fs::path& root, Machine& machine) {
  std::ifstream in(root / "proc/cpuinfo");
  std::vector<std::string> flags;
  for (std::string line; std::getline(in, line);) {
    const auto colon = line.find(':');
    if (colon == std::string::npos) continue;
    const auto name_end = line.find_last_not_of(" \t", colon - 1);
    const std::string name = line.substr(0, name_end + 1);
    const auto value_start = line.find_first_not_of(" \t", colon + 1);
    const std::string value = value_start == std::string::npos ? "" : line.substr(value_start);
    if (name == "model name" && machine.cpu_model.empty()) machine.cpu_model = value;
    if ((name == "flags" || name == "Features") && flags.empty()) {
      std::istringstream words(value);
      for (std::string word; words >> word;) flags.push_back(word);
    }
  }
  if (machine.cpu_model.empty()) machine.cpu_model = "unknown";
  for (const auto& name : kInstructionSets) {
    if (std::ranges::find(flags, name) != flags.end()) machine.instruction_sets.emplace_back(name);
  }
}

// "Model:  NVIDIA H100 80GB HBM3" in a file for each GPU, in a folder named by its bus address.
void probe_gpus(const fs::path& root, Machine& machine) {
  std::error_code none;
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(root / "proc/driver/nvidia/gpus", none)) {
    folders.push_back(entry.path());
  }
  std::ranges::sort(folders);
  for (const fs::path& folder : folders) {
    std::ifstream in(folder / "information");
    for (std::string line; std::getline(in, line);) {
      if (!line.starts_with("Model:")) continue;
      const auto start = line.find_first_not_of(" \t", line.find(':') + 1);
      if (start != std::string::npos) machine.gpus.push_back(line.substr(start));
    }
  }
}

}  // namespace

bool Machine::has(const std::string& instruction_set) const {
  return std::ranges::find(instruction_sets, instruction_set) != instruction_sets.end();
}

bool Machine::has_fast_bf16() const { return has("avx512_bf16") || has("amx_bf16") || has("bf16"); }

Machine probe_machine(const fs::path& root) {
  Machine machine;
  machine.cores = std::min(given_processors(), quota_cores(root));
  probe_memory(root, machine);
  probe_processor(root, machine);
  probe_gpus(root, machine);
  return machine;
}

}  // namespace wavroute
