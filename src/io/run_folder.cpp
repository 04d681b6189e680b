#include "io/run_folder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "wavroute/error.h"

namespace wavroute {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kRunKinds = "a run folder, a checkpoint folder or a Hugging Face folder";

bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error);
}

// "config.toml, train.log and 3 more": what lies in a folder that isn't what we looked for.
std::string describe_content(const fs::path& folder) {
  constexpr size_t kMost = 6;
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    names.push_back(entry.path().filename().string());
  }
  if (error) throw_system_error("list", folder, error.value());
  if (names.empty()) return "an empty folder";
  std::ranges::sort(names);
  const size_t more = names.size() - std::min(names.size(), kMost);
  names.resize(names.size() - more);
  return fmt::format("a folder with {}{}", fmt::join(names, ", "),
                     more > 0 ? fmt::format(" and {} more", more) : "");
}

std::string steps_of(const std::vector<Checkpoint>& checkpoints) {
  std::vector<int64_t> steps;
  steps.reserve(checkpoints.size());
  for (const Checkpoint& checkpoint : checkpoints) steps.push_back(checkpoint.step);
  return fmt::format("{}", fmt::join(steps, ", "));
}

fs::path verified(const fs::path& checkpoint) {
  if (const auto reason = verify_checkpoint(checkpoint)) {
    throw UserError(fmt::format("expected a whole checkpoint, found that {}, in {}", *reason,
                                checkpoint.string()),
                    "take another checkpoint, or train again");
  }
  return checkpoint;
}

fs::path newest_of(const fs::path& run, const OnSkippedCheckpoint& on_skip) {
  std::string last_reason;
  const auto newest =
      newest_valid_checkpoint(run, [&](const Checkpoint& checkpoint, const std::string& reason) {
        last_reason = fmt::format(" whole (in {} {})", checkpoint.path.filename().string(), reason);
        if (on_skip) on_skip(checkpoint, reason);
      });
  if (newest) return newest->path;
  throw UserError(
      fmt::format("expected a checkpoint, found none{}, in {}", last_reason, run.string()),
      "train until the first checkpoint: wavroute train CONFIG --resume auto");
}

fs::path choose_checkpoint(const fs::path& run, std::string_view which,
                           const OnSkippedCheckpoint& on_skip) {
  if (which.empty()) return newest_of(run, on_skip);
  const std::vector<Checkpoint> checkpoints = list_checkpoints(run);
  if (which == "best") {
    if (const auto best = best_checkpoint(run)) return verified(best->path);
    throw UserError(fmt::format("expected a checkpoint with a validation loss, found none, in {}",
                                run.string()),
                    "leave --checkpoint out for the newest one");
  }
  const auto found = std::ranges::find_if(checkpoints, [&](const Checkpoint& checkpoint) {
    return std::to_string(checkpoint.step) == which;
  });
  if (found != checkpoints.end()) return verified(found->path);
  throw UserError(fmt::format("expected 'best' or a step that has a checkpoint, found '{}', in {}",
                              which, run.string()),
                  checkpoints.empty() ? "this run has no checkpoint yet"
                                      : "its checkpoints: " + steps_of(checkpoints));
}

[[noreturn]] void refuse(const fs::path& run) {
  if (is_there(run / "model.safetensors.index.json")) {
    throw UserError(fmt::format("expected one model.safetensors, found a model in several, in {}",
                                run.string()),
                    "save it in one piece: save_pretrained(..., max_shard_size='1TB')");
  }
  throw UserError(
      fmt::format("expected {}, found {}, at {}", kRunKinds, describe_content(run), run.string()),
      "a Hugging Face folder holds config.json and model.safetensors");
}

}  // namespace

bool RunPaths::hold_a_run() const {
  std::error_code error;
  const auto left = {config(), env(), metrics(), log()};
  return std::ranges::any_of(left, is_there) ||
         (fs::is_directory(checkpoints(), error) && !fs::is_empty(checkpoints(), error));
}

RunFolder::RunFolder(RunPaths paths, FileLock lock)
    : paths_(std::move(paths)), lock_(std::move(lock)) {}

RunFolder RunFolder::create(const fs::path& root, ExistingRun existing) {
  make_folders(root);
  RunFolder folder({root}, FileLock(root));
  remove_stale_temporaries(root);
  remove_stale_temporaries(folder.paths().checkpoints());
  if (existing == ExistingRun::kRefuse && folder.paths().hold_a_run()) {
    throw UserError(fmt::format("expected a new folder, found a run in {}", root.string()),
                    "continue it with --resume auto, or choose another folder with --out");
  }
  return folder;
}

fs::path resolve_run(const fs::path& run, std::string_view which,
                     const OnSkippedCheckpoint& on_skip) {
  std::error_code error;
  if (!fs::is_directory(run, error)) {
    throw UserError(fmt::format("expected {}, found {}, at {}", kRunKinds,
                                is_there(run) ? "a file" : "nothing", run.string()),
                    "name the folder that --out named in training");
  }
  const RunPaths paths{run};
  const bool has_model = is_there(run / "config.json") && is_there(run / "model.safetensors");
  if (fs::is_directory(paths.checkpoints(), error) || (is_there(paths.config()) && !has_model)) {
    return choose_checkpoint(run, which, on_skip);
  }
  const bool is_checkpoint = is_there(run / "state.json");
  if (!is_checkpoint && !has_model) refuse(run);
  if (!which.empty()) {
    throw UserError(
        fmt::format("expected a run folder to take checkpoint '{}' from, found {}, at {}", which,
                    is_checkpoint ? "one checkpoint" : "one model", run.string()),
        "name the run folder, or leave --checkpoint out");
  }
  return is_checkpoint ? verified(run) : run;
}

}  // namespace wavroute
