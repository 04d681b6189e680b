// The run folder: where everything of one training run lies.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

#include "io/checkpoint.h"
#include "io/file.h"
#include "io/jsonl.h"

namespace wavroute {

// The names inside a run folder; looking at them needs no lock.
struct RunPaths {
  std::filesystem::path root;

  [[nodiscard]] std::filesystem::path config() const { return root / "config.toml"; }
  [[nodiscard]] std::filesystem::path env() const { return root / "env.json"; }
  [[nodiscard]] std::filesystem::path metrics() const { return root / "metrics.jsonl"; }
  [[nodiscard]] std::filesystem::path log() const { return root / "train.log"; }
  [[nodiscard]] std::filesystem::path samples() const { return root / "samples"; }
  [[nodiscard]] std::filesystem::path report() const { return root / "report.html"; }
  [[nodiscard]] std::filesystem::path checkpoints() const { return root / "checkpoints"; }

  // Whether a run has left anything of the above, besides empty folders and a report.
  [[nodiscard]] bool hold_a_run() const;
};

enum class ExistingRun { kRefuse, kResume };

// A run folder that this process writes, locked until destruction.
class RunFolder {
 public:
  // Makes the folder and its parents, takes the lock, and sweeps out what a killed process left
  // half-written. A UserError where another process holds it, where it can't be written, or where
  // it already holds a run and that isn't to be resumed.
  [[nodiscard]] static RunFolder create(const std::filesystem::path& root,
                                        ExistingRun existing = ExistingRun::kRefuse);

  [[nodiscard]] const RunPaths& paths() const noexcept { return paths_; }

 private:
  RunFolder(RunPaths paths, FileLock lock);

  RunPaths paths_;
  FileLock lock_;
};

// The folder with config.json and model.safetensors that a user means by RUN: a run folder (then
// `which` is "" for its newest whole checkpoint, "best", or a step), a checkpoint folder (checked),
// or a Hugging Face folder. Else a UserError that says what was found there. `on_skip` hears of
// broken checkpoints that were passed over.
[[nodiscard]] std::filesystem::path resolve_run(const std::filesystem::path& run,
                                                std::string_view which = {},
                                                const OnSkippedCheckpoint& on_skip = {});

}  // namespace wavroute
