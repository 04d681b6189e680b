// summary.json: what a run is and its status, for compare and report.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "io/run_folder.h"
#include "train/session.h"

namespace wavroute {

// The status in summary.json of a run that is in progress or was killed: no loss, no speed.
inline constexpr std::string_view kRunning = "running";
inline constexpr std::string_view kFinished = "finished";  // with the loss at the last step
inline constexpr std::string_view kStopped = "stopped";    // by a signal, a checkpoint was written
inline constexpr std::string_view kDiverged = "diverged";
inline constexpr std::string_view kFailed = "failed";  // by an error: a full disk

struct RunFigures {
  std::optional<double> val_loss, bits_per_byte;  // at the last step
  // What val_loss is the mean over: only losses over the same tokens can be compared.
  int64_t val_tokens = 0, val_bytes = 0;
  int64_t schedule_steps = 0;          // planned at first; fewer than the steps of an extended run
  std::string init_sha256;             // of train.init's weights; empty: none
  std::optional<double> tokens_per_s;  // of this process; else from metrics.jsonl
};

void write_summary(const RunPaths& paths, const Session& session, std::string_view status,
                   const RunFigures& figures);

// The status in summary.json; empty where none can be read.
[[nodiscard]] std::string summary_status(const RunPaths& paths);

// Whether summary.json already says that the run of so many steps is finished.
[[nodiscard]] bool says_finished(const RunPaths& paths, int64_t steps);

}  // namespace wavroute
