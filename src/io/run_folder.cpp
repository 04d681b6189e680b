#include "io/run_folder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "io/checkpoint_names.h"
#include "io/json_text.h"
#include "io/link.h"
#include "wavroute/error.h"

namespace wavroute {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kRunKinds = "a run folder, a checkpoint folder or a Hugging Face folder";

// "config.toml, train.log and 3 more": the content of a folder that isn't what we looked for.
std::string describe_content(const fs::path& folder) {
  constexpr size_t kMost = 6;
  std::vector<std::string> names = list_folder(folder);
  if (names.empty()) return "an empty folder";
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
  if (const auto damage = verify_checkpoint(checkpoint)) {
    throw DamagedCheckpoint(*damage, checkpoint);
  }
  return checkpoint;
}

bool is_folder(const fs::path& path) {
  std::error_code ignored;
  return is_there(path) && fs::is_directory(path, ignored);
}

bool is_link(const fs::path& path) {
  std::error_code ignored;
  return fs::is_symlink(path, ignored);
}

fs::path newest_of(const fs::path& run, const OnSkippedCheckpoint& on_skip) {
  std::string last_reason;
  const auto newest =
      newest_valid_checkpoint(run, [&](const Checkpoint& checkpoint, const std::string& reason) {
        last_reason = fmt::format(" whole (in {} {})", checkpoint.path.filename().string(), reason);
        if (on_skip) on_skip(checkpoint, reason);
      });
  if (newest) return newest->path;
  throw expected("a checkpoint", fmt::format("none{}", last_reason),
                 fmt::format("in {}", run.string()),
                 "train until the first checkpoint: wavroute train CONFIG --resume auto");
}

fs::path choose_checkpoint(const fs::path& run, std::string_view which,
                           const OnSkippedCheckpoint& on_skip) {
  if (which.empty()) return newest_of(run, on_skip);
  const std::vector<Checkpoint> checkpoints = list_checkpoints(run);
  if (which == "best") {
    for (auto best = best_checkpoint(run, on_skip); best; best = best_checkpoint(run, on_skip)) {
      try {
        return verified(best->path);
      } catch (const Error&) {
        // A run in training may have removed it, which has a better one by then.
        if (is_there(best->path)) throw;
      }
    }
    throw expected("a checkpoint with a validation loss", "none",
                   fmt::format("in {}", run.string()), "leave --checkpoint out for the newest one");
  }
  const auto found = std::ranges::find_if(checkpoints, [&](const Checkpoint& checkpoint) {
    return std::to_string(checkpoint.step) == which;
  });
  if (found != checkpoints.end()) return verified(found->path);
  throw expected("'best' or a step that has a checkpoint", fmt::format("'{}'", which),
                 fmt::format("in {}", run.string()),
                 checkpoints.empty() ? "this run has no checkpoint yet"
                                     : "its checkpoints: " + steps_of(checkpoints));
}

// Whether a name is ".tmp-LABEL-PID" of a process that has ended: what versions before the present
// names (temporary_name) made of a checkpoint.
bool is_old_form(std::string_view name) {
  for (const std::string_view prefix : {".tmp-step_", ".tmp-removed-step_"}) {
    if (!name.starts_with(prefix)) continue;
    const std::string_view rest = name.substr(prefix.size());  // STEP-PID
    const size_t dash = rest.find('-');
    if (dash == 0 || dash == rest.npos) return false;
    const std::string_view digits = rest.substr(dash + 1);
    int64_t step = -1, pid = -1;
    std::from_chars(rest.data(), rest.data() + dash, step);
    std::from_chars(digits.data(), digits.data() + digits.size(), pid);
    return rest == fmt::format("{}-{}", step, pid) && step >= 0 && pid > 0 &&
           pid <= std::numeric_limits<pid_t>::max() && ::kill(static_cast<pid_t>(pid), 0) != 0 &&
           errno == ESRCH;
  }
  return false;
}

// Such names are only taken for ours inside RUN/checkpoints, under the run's lock, and where
// nothing but the files of a checkpoint lies in them. Adds what can't be removed to `left`.
void remove_old_forms(const fs::path& checkpoints, std::vector<fs::path>& left) {
  constexpr std::array<std::string_view, 5> kOurs = {kConfigFile, kModelFile, kOptimizerFile,
                                                     kTokenizerFile, kStateFile};
  for (const std::string& name : list_folder(checkpoints)) {
    if (!is_old_form(name) || !is_folder(checkpoints / name)) continue;
    try {
      const std::vector<std::string> inside = list_folder(checkpoints / name);
      const bool is_ours = std::ranges::all_of(inside, [&](const std::string& file) {
        return std::ranges::find(kOurs, file) != kOurs.end() || file.starts_with(".tmp-");
      });
      if (is_ours) remove_tree(checkpoints / name);
    } catch (const Error&) {
      left.push_back(checkpoints / name);
    }
  }
}

[[noreturn]] void refuse(const fs::path& run) {
  if (is_there(run / "model.safetensors.index.json")) {
    throw expected("one model.safetensors", "a model in several",
                   fmt::format("in {}", run.string()),
                   "save it in one piece: save_pretrained(..., max_shard_size='1TB')");
  }
  throw expected(kRunKinds, describe_content(run), fmt::format("at {}", run.string()),
                 "a Hugging Face folder holds config.json and model.safetensors");
}

}  // namespace

bool RunPaths::hold_a_run() const {
  const auto left = {config(), env(), metrics(), log()};
  return std::ranges::any_of(left, is_there) ||
         (is_folder(checkpoints()) && !list_folder(checkpoints()).empty());
}

std::optional<fs::path> RunPaths::replaced_file() const {
  for (fs::path path : {summary(), routing(), report(), metrics()}) {
    if (is_there(path)) return path;
  }
  if (!is_folder(samples())) return std::nullopt;
  for (const std::string& name : list_folder(samples())) {
    if (name.starts_with("step_") && name.ends_with(".txt")) return samples() / name;
  }
  return std::nullopt;
}

void check_run_format(const RunPaths& paths) {
  if (!is_there(paths.env())) return;
  nlohmann::json env;
  try {
    env = read_json(paths.env());
  } catch (const UserError&) {
    return;
  }
  check_format(env, kRunFormat, "a run folder", paths.root.string());
}

RunFolder::RunFolder(RunPaths paths, bool made, FileLock lock)
    : paths_(std::move(paths)), made_(made), lock_(std::move(lock)) {}

RunFolder::~RunFolder() {
  try {
    if (paths_.root.empty() || paths_.hold_a_run()) return;  // moved from, or in use
  } catch (const std::exception&) {
    return;
  }
  lock_.remove_if_made();                   // and with it .lock-holder, where that is the lock
  if (made_) ::rmdir(paths_.root.c_str());  // refuses a folder with anything in it
}

RunFolder RunFolder::create(const fs::path& root, ExistingRun existing) {
  const RunPaths paths{root};
  const auto refuse_a_run = [&] {
    for (const fs::path& folder : {paths.samples(), paths.checkpoints()}) {
      refuse_link(folder, "a folder of the run",
                  "move what it leads to in its place, or choose another folder with --out");
    }
    if (existing == ExistingRun::kResume) return;
    if (paths.hold_a_run()) {
      if (is_there(root / ".lock")) static_cast<void>(FileLock(root));  // names who trains there
      throw expected("a new folder", "a run", fmt::format("in {}", root.string()),
                     "continue it with --resume auto, or choose another folder with --out");
    }
    if (const auto file = paths.replaced_file()) {
      throw expected(
          fmt::format("a folder without a {}, which training writes", file->filename().string()),
          file->string(), {}, "move it away, or choose another folder with --out");
    }
  };
  constexpr int kAttempts = 20;  // another process may remove the empty folder that it made
  for (int attempt = 1;; ++attempt) {
    refuse_a_run();  // before anything is made there
    const bool made = !is_there(root);
    make_folders(root);
    try {
      RunFolder folder(paths, made, FileLock(root));
      refuse_a_run();
      return folder;
    } catch (const Error&) {
      if (attempt == kAttempts || is_there(root)) throw;
    }
  }
}

std::vector<fs::path> RunFolder::sweep() const {
  std::vector<fs::path> left;
  for (const fs::path& folder :
       {paths_.root, paths_.samples(), paths_.checkpoints(), paths_.root / "configs"}) {
    if (!is_folder(folder) || is_link(folder)) continue;
    try {
      for (fs::path& path : remove_stale_temporaries(folder)) left.push_back(std::move(path));
      if (folder == paths_.checkpoints()) remove_old_forms(folder, left);
    } catch (const Error&) {  // a folder that can't be listed
      left.push_back(folder);
    }
  }
  return left;
}

fs::path resolve_run(const fs::path& run, std::string_view which,
                     const OnSkippedCheckpoint& on_skip) {
  if (!is_folder(run)) {
    throw expected(kRunKinds, is_there(run) ? "a file" : "nothing",
                   fmt::format("at {}", run.string()),
                   "name the folder that --out named in training");
  }
  // A model may lie beside somebody's config.toml or in front of somebody's checkpoints: only both
  // of ours make a run of its folder.
  const bool has_model = is_there(run / kConfigFile) && is_there(run / kModelFile);
  const bool has_config = is_there(RunPaths{run}.config());
  const bool has_checkpoints =
      is_folder(RunPaths{run}.checkpoints()) && !list_checkpoints(run).empty();
  if (has_model ? has_config && has_checkpoints : has_config || has_checkpoints) {
    check_run_format(RunPaths{run});
    return choose_checkpoint(run, which, on_skip);
  }
  const bool is_checkpoint = is_there(run / kStateFile);
  if (!is_checkpoint && !has_model) refuse(run);
  if (!which.empty()) {
    throw expected(fmt::format("a run folder to take checkpoint '{}' from", which),
                   is_checkpoint ? "one checkpoint" : "one model",
                   fmt::format("at {}", run.string()),
                   "name the run folder, or leave --checkpoint out");
  }
  return is_checkpoint ? verified(run) : run;
}

void read_run_folder(const fs::path& run, std::string_view which,
                     const OnSkippedCheckpoint& on_skip,
                     const std::function<void(const fs::path&)>& read) {
  constexpr int kAttempts = 20;
  const fs::path checkpoints = RunPaths{run}.checkpoints();
  const auto names = [&] {
    return is_folder(checkpoints) ? list_folder(checkpoints) : std::vector<std::string>();
  };
  for (int attempt = 1;; ++attempt) {
    const std::vector<std::string> before = names();
    fs::path folder;
    try {
      folder = resolve_run(run, which, on_skip);
      return read(folder);
    } catch (const Error&) {
      const bool is_gone = folder.empty() ? names() != before : !is_there(folder);
      if (attempt == kAttempts || !is_gone) throw;
    }
  }
}

}  // namespace wavroute
