// Checkpoints: RUN/checkpoints/step_N/, each complete or absent. state.json is written last and
// holds the size and checksum of every other file.
//
// Damage (a file that is missing, cut, changed) belongs to the checkpoint: readers pass over it.
// Trouble in reading (no permission, a broken device, no memory, too many open files) says nothing
// about the files: it is thrown.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/checkpoint_state.h"

namespace wavroute {

struct Checkpoint {
  int64_t step = 0;
  std::filesystem::path path;
};

// Makes one checkpoint: files go into folder(), then finish() puts it in its place. Without
// finish() nothing is left of it. The caller holds the run's lock.
class CheckpointWriter {
 public:
  // `run` is the run folder; step >= 0.
  CheckpointWriter(const std::filesystem::path& run, int64_t step);
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;
  ~CheckpointWriter();

  // Where the files go until finish(). Plain files only, no folders.
  [[nodiscard]] const std::filesystem::path& folder() const noexcept { return temporary_; }
  // Writes a small file (config.json, tokenizer.json).
  void write(const std::string& name, std::string_view content);
  // Saves finish() from reading a file again: `digest` is what write_safetensors returned for it.
  void add_digest(const std::string& name, FileDigest digest);

  // Adds `files` and `step` to the state, writes it as state.json, and renames the folder to
  // step_N, in exchange for an older one of the same step. Returns its path. Call it once.
  std::filesystem::path finish(nlohmann::json state);

 private:
  std::filesystem::path final_, temporary_;
  int64_t step_;
  std::map<std::string, FileDigest> digests_;
};

// The checkpoints of a run by step, unchecked. A run without any gives none.
[[nodiscard]] std::vector<Checkpoint> list_checkpoints(const std::filesystem::path& run);

// Compares a checkpoint's files with the sizes and checksums in its state.json. Returns what is
// damaged ("model.safetensors has 10 bytes, expected 12"); nothing if it is whole.
[[nodiscard]] std::optional<std::string> verify_checkpoint(const std::filesystem::path& checkpoint);

// Called for each checkpoint that was passed over, or that couldn't be removed, with the reason.
using OnSkippedCheckpoint = std::function<void(const Checkpoint&, const std::string& reason)>;

// The checkpoint with the highest step among those that verify_checkpoint finds whole.
[[nodiscard]] std::optional<Checkpoint> newest_valid_checkpoint(
    const std::filesystem::path& run, const OnSkippedCheckpoint& on_skip = {});

// The checkpoint with the lowest "val_loss" in its state (the earlier of equals); its files are
// unchecked. States without a finite val_loss don't compete.
[[nodiscard]] std::optional<Checkpoint> best_checkpoint(const std::filesystem::path& run,
                                                        const OnSkippedCheckpoint& on_skip = {});

// Removes all but the last `keep` checkpoints (at least one) and the best. Only steps up to
// `step`, the one just written, count or go: what a run that was resumed from an earlier step
// left beyond it must not push the new ones out. Neither do checkpoints with missing or cut
// files, and those that can't be read. One that can't be removed (somebody else's, one without
// permission to write) is left and told to `on_left`. The caller holds the run's lock.
void retain_checkpoints(const std::filesystem::path& run, int64_t keep, int64_t step,
                        const OnSkippedCheckpoint& on_left = {});

struct SetAside {
  std::filesystem::path from, to;
};

// Renames a file or folder to PREFIX-NAME beside it, or PREFIX-NAME.2 and so on; replaces nothing.
// The caller holds the run's lock.
SetAside set_aside(const std::filesystem::path& path, std::string_view prefix);

// Renames the checkpoints beyond `step` (-1: all), so that no reader takes them for a part of the
// run any more and the user still has them: later-step_N, or damaged-step_N for a damaged one. The
// caller holds the run's lock.
std::vector<SetAside> set_aside_later(const std::filesystem::path& run, int64_t step);

}  // namespace wavroute
