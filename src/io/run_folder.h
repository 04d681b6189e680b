// The run folder: everything of one training run.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

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

  [[nodiscard]] std::filesystem::path summary() const { return root / "summary.json"; }
  [[nodiscard]] std::filesystem::path routing() const { return root / "routing.json"; }
  // Of train.sinks: what they keep here, and what they say.
  [[nodiscard]] std::filesystem::path sinks() const { return root / "sinks"; }
  [[nodiscard]] std::filesystem::path sinks_log() const { return sinks() / "sinks.log"; }

  // Whether a run, or part of one, is there: a configuration, env.json, metrics, a log, or anything
  // in checkpoints/.
  [[nodiscard]] bool hold_a_run() const;
  // What besides these a training would put its own in the place of, if it is there: summary.json,
  // routing.json, report.html, metrics.jsonl or the first text of samples/.
  [[nodiscard]] std::optional<std::filesystem::path> replaced_file() const;
};

// The format number of a run folder's files. env.json names it; without a number it is format 1.
inline constexpr int64_t kRunFormat = 1;

// UserError where a newer version wrote the run. Its env.json may be missing or damaged.
void check_run_format(const RunPaths& paths);

enum class ExistingRun { kRefuse, kResume };

// A run folder that this process writes, locked until destruction. A folder that it made is removed
// at destruction if it is still empty.
class RunFolder {
 public:
  // Makes the folder and its parents and takes the lock; removes nothing. A UserError where another
  // process holds it, where it can't be written, where samples/ or checkpoints/ is a link (what it
  // leads to may be another run's, whose lock this isn't), or where it already holds a run, or a
  // file that training would replace, and that isn't to be resumed. Look at what the folder holds
  // after this call, not before: until then another process may begin a run there.
  [[nodiscard]] static RunFolder create(const std::filesystem::path& root,
                                        ExistingRun existing = ExistingRun::kRefuse);
  RunFolder(RunFolder&&) noexcept = default;
  RunFolder& operator=(RunFolder&&) = delete;
  ~RunFolder();

  [[nodiscard]] const RunPaths& paths() const noexcept { return paths_; }
  // A note on the lock for the user; usually empty.
  [[nodiscard]] const std::string& warning() const noexcept { return lock_.warning(); }

  // Removes what killed processes left half-written in this folder and its parts. Call it once it
  // is certain that the command goes on with this folder. Returns what is left: because its maker
  // isn't known here (another host or container, or before this machine started), or because it
  // can't be removed.
  std::vector<std::filesystem::path> sweep() const;

 private:
  RunFolder(RunPaths paths, bool made, FileLock lock);

  RunPaths paths_;
  bool made_;
  FileLock lock_;
};

// The folder with config.json and model.safetensors that a user means by RUN: a run folder (then
// `which` is "" for its newest whole checkpoint, "best", or a step), a checkpoint folder (checked),
// or a Hugging Face folder. Else a UserError that says what was found there. `on_skip` hears of
// broken checkpoints that were passed over.
[[nodiscard]] std::filesystem::path resolve_run(const std::filesystem::path& run,
                                                std::string_view which = {},
                                                const OnSkippedCheckpoint& on_skip = {});

// Calls read(folder) with what resolve_run gives. A run in training removes old checkpoints: where
// the folder is gone when read() fails, or others are there when resolve_run does, both are done
// again.
void read_run_folder(const std::filesystem::path& run, std::string_view which,
                     const OnSkippedCheckpoint& on_skip,
                     const std::function<void(const std::filesystem::path&)>& read);

}  // namespace wavroute
