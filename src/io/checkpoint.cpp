#include "io/checkpoint.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <stdio.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "io/checkpoint_names.h"
#include "io/file.h"
#include "wavroute/error.h"

namespace wavroute {
namespace fs = std::filesystem;
using nlohmann::json;
namespace {

// Out of the readers' sight in one step, then away.
void remove_checkpoint(const fs::path& checkpoint) {
  const fs::path hidden =
      checkpoint.parent_path() / temporary_name("removed-" + checkpoint.filename().string());
  if (::rename(checkpoint.c_str(), hidden.c_str()) != 0) {
    throw_system_error("remove", checkpoint, errno);
  }
  remove_tree(hidden);
}

// Removes what a whole new checkpoint has replaced. What can't be removed is left under a name that
// the next sweep tells: the new one is as good with it.
void try_to_remove(const fs::path& replaced) {
  try {
    remove_checkpoint(replaced);
  } catch (const Error&) {
  }
}

// Moves the folder `from` to `to` and removes what was there.
void replace_folder(const fs::path& from, const fs::path& to) {
  if (!is_there(to)) {
    if (::rename(from.c_str(), to.c_str()) != 0) throw_system_error("write", to, errno);
  } else if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) {
    sync_folder(to.parent_path());
    try_to_remove(from);
  } else {
    // A file system that can't exchange: for a moment there is neither. Whoever is killed then
    // finds the old one under a name that is never swept.
    const fs::path old = set_aside(to, "replaced").to;
    if (::rename(from.c_str(), to.c_str()) != 0) throw_system_error("write", to, errno);
    sync_folder(to.parent_path());
    try_to_remove(old);
  }
  sync_folder(to.parent_path());
}

FileDigest digest_of(const fs::path& path) {
  const MappedFile file(path);
  return {file.bytes().size(), sha256_hex(file.bytes())};
}

void check_size(const fs::path& checkpoint, const std::string& name, uint64_t expected) {
  struct stat status {};
  if (::stat((checkpoint / name).c_str(), &status) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) {
      throw DamagedCheckpoint(fmt::format("{} is missing", name), checkpoint);
    }
    throw_system_error("look at", checkpoint / name, errno);
  }
  if (!S_ISREG(status.st_mode)) {
    throw DamagedCheckpoint(fmt::format("{} is no regular file", name), checkpoint);
  }
  if (const auto bytes = static_cast<uint64_t>(status.st_size); bytes != expected) {
    throw DamagedCheckpoint(fmt::format("{} has {} bytes, expected {}", name, bytes, expected),
                            checkpoint);
  }
}

// Sizes only: cheap enough to look at every checkpoint. Throws DamagedCheckpoint.
json state_of_whole_size(const fs::path& checkpoint) {
  json state = read_state(checkpoint);
  for (const auto& [name, digest] : listed_files(state)) {
    check_size(checkpoint, name, digest.bytes);
  }
  return state;
}

// The files may vanish in between if a run in training removes the checkpoint.
std::string checksum_in(const fs::path& checkpoint, const std::string& name) {
  try {
    return sha256_file(checkpoint / name);
  } catch (const UserError&) {
    if (is_there(checkpoint / name)) throw;
    throw DamagedCheckpoint(fmt::format("{} is missing", name), checkpoint);
  }
}

// As verify_checkpoint. Trouble with a checkpoint that is gone afterwards is no trouble: its files
// vanished between two looks, or (on NFS) are known but stale.
std::optional<std::string> damage_unless_gone(const fs::path& checkpoint) {
  try {
    return verify_checkpoint(checkpoint);
  } catch (const Error& error) {
    if (is_there(checkpoint)) throw;
    return error.what();
  }
}

// The validation loss by which a checkpoint competes to be the best.
std::optional<double> competing_loss(const json& state) {
  const auto found = state.find("val_loss");
  if (found == state.end() || !found->is_number()) return std::nullopt;
  const auto loss = found->get<double>();
  return std::isfinite(loss) ? std::optional(loss) : std::nullopt;
}

// Keeps the lowest loss; on a tie the earlier checkpoint, if they come in the order of their steps.
class BestOf {
 public:
  void show(const Checkpoint& checkpoint, const json& state) {
    const auto loss = competing_loss(state);
    if (!loss || (best_ && *loss >= lowest_)) return;
    best_ = checkpoint;
    lowest_ = *loss;
  }
  [[nodiscard]] const std::optional<Checkpoint>& best() const { return best_; }

 private:
  std::optional<Checkpoint> best_;
  double lowest_ = 0.0;
};

}  // namespace

CheckpointWriter::CheckpointWriter(const fs::path& run, int64_t step)
    : final_(run / "checkpoints" / checkpoint_name(step)),
      temporary_(run / "checkpoints" / temporary_name(checkpoint_name(step))),
      step_(step) {
  make_folders(temporary_);
}

CheckpointWriter::~CheckpointWriter() {
  std::error_code ignored;  // a destructor must not throw, and the name marks it as temporary
  if (!temporary_.empty()) fs::remove_all(temporary_, ignored);
}

void CheckpointWriter::write(const std::string& name, std::string_view content) {
  write_file_atomic(temporary_ / name, content);
  add_digest(name, {content.size(), sha256_hex(content)});
}

void CheckpointWriter::add_digest(const std::string& name, FileDigest digest) {
  digests_[name] = std::move(digest);
}

fs::path CheckpointWriter::finish(json state) {
  json files = json::object();
  for (const std::string& name : list_folder(temporary_)) {
    const fs::path path = temporary_ / name;
    const auto known = digests_.find(name);
    const FileDigest digest = known != digests_.end() ? known->second : digest_of(path);
    if (fs::file_size(path) != digest.bytes) {
      throw Failure(expectation(fmt::format("{} bytes as written", digest.bytes),
                                fs::file_size(path), fmt::format("in {}", path.string())));
    }
    sync_file(path);
    files[name] = {{"bytes", digest.bytes}, {"sha256", digest.sha256}};
  }
  state["step"] = step_;
  state["files"] = std::move(files);
  write_file_atomic(temporary_ / kStateFile, state_text(std::move(state)));  // syncs the folder
  replace_folder(temporary_, final_);
  temporary_.clear();
  return final_;
}

std::vector<Checkpoint> list_checkpoints(const fs::path& run) {
  const fs::path folder = run / "checkpoints";
  std::vector<Checkpoint> checkpoints;
  for (const std::string& name : list_folder(folder)) {
    const auto step = step_of_checkpoint(name);
    struct stat status {};
    if (!step) continue;
    if (::stat((folder / name).c_str(), &status) != 0) {
      if (errno == ENOENT) continue;  // removed meanwhile
      throw_system_error("look at", folder / name, errno);
    }
    if (S_ISDIR(status.st_mode)) checkpoints.push_back({*step, folder / name});
  }
  std::ranges::sort(checkpoints, {}, &Checkpoint::step);
  return checkpoints;
}

std::optional<std::string> verify_checkpoint(const fs::path& checkpoint) {
  try {
    for (const auto& [name, digest] : listed_files(state_of_whole_size(checkpoint))) {
      if (checksum_in(checkpoint, name) != digest.sha256) {
        return fmt::format("{} does not match its checksum", name);
      }
    }
  } catch (const DamagedCheckpoint& damage) {
    return damage.reason();
  }
  return std::nullopt;
}

std::optional<Checkpoint> newest_valid_checkpoint(const fs::path& run,
                                                  const OnSkippedCheckpoint& on_skip) {
  std::vector<Checkpoint> checkpoints = list_checkpoints(run);
  std::set<int64_t> skipped;
  while (!checkpoints.empty()) {
    const Checkpoint newest = checkpoints.back();
    const auto damage = damage_unless_gone(newest.path);
    if (!damage) return newest;
    if (!is_there(newest.path)) {
      // A run in training removed it, after it had written a newer one.
      checkpoints = list_checkpoints(run);
      std::erase_if(checkpoints, [&](const Checkpoint& c) { return skipped.contains(c.step); });
      continue;
    }
    if (on_skip) on_skip(newest, *damage);
    skipped.insert(newest.step);
    checkpoints.pop_back();
  }
  return std::nullopt;
}

std::optional<Checkpoint> best_checkpoint(const fs::path& run, const OnSkippedCheckpoint& on_skip) {
  BestOf best;
  for (const Checkpoint& checkpoint : list_checkpoints(run)) {
    try {
      best.show(checkpoint, read_state(checkpoint.path));
    } catch (const DamagedCheckpoint& damage) {
      if (on_skip && is_there(checkpoint.path)) on_skip(checkpoint, damage.reason());
    } catch (const Error&) {
      if (is_there(checkpoint.path)) throw;
    }
  }
  return best.best();
}

void retain_checkpoints(const fs::path& run, int64_t keep, int64_t step,
                        const OnSkippedCheckpoint& on_left) {
  std::vector<Checkpoint> whole;
  BestOf best;
  for (const Checkpoint& checkpoint : list_checkpoints(run)) {
    if (checkpoint.step > step) continue;
    try {
      best.show(checkpoint, state_of_whole_size(checkpoint.path));
      whole.push_back(checkpoint);
    } catch (const Error&) {  // damaged, or unreadable just now: neither counted nor removed
    }
  }
  const auto count = static_cast<int64_t>(whole.size());
  for (int64_t i = 0; i < count - std::max<int64_t>(keep, 1); ++i) {
    const Checkpoint& checkpoint = whole[static_cast<size_t>(i)];
    if (best.best() && checkpoint.step == best.best()->step) continue;
    try {
      remove_checkpoint(checkpoint.path);
    } catch (const Error& error) {
      if (on_left) on_left(checkpoint, error.what());
    }
  }
}

SetAside set_aside(const fs::path& path, std::string_view prefix) {
  const std::string name = fmt::format("{}-{}", prefix, path.filename().string());
  for (int count = 1;; ++count) {
    fs::path to = path.parent_path() / (count == 1 ? name : fmt::format("{}.{}", name, count));
    if (::renameat2(AT_FDCWD, path.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) {
      return {path, to};
    }
    if (errno == EEXIST) continue;
    // A file system without that flag: a rename replaces an empty folder, or any file.
    if (errno != EINVAL && errno != ENOSYS) throw_system_error("rename", path, errno);
    if (is_there(to)) continue;
    if (::rename(path.c_str(), to.c_str()) == 0) return {path, to};
    if (errno != EEXIST && errno != ENOTEMPTY && errno != ENOTDIR) {
      throw_system_error("rename", path, errno);
    }
  }
}

std::vector<SetAside> set_aside_later(const fs::path& run, int64_t step) {
  const auto prefix = [](const fs::path& checkpoint) {
    try {
      return verify_checkpoint(checkpoint) ? "damaged" : "later";
    } catch (const Error&) {  // can't be read just now
      return "later";
    }
  };
  std::vector<SetAside> moved;
  for (const Checkpoint& checkpoint : list_checkpoints(run)) {
    if (checkpoint.step <= step) continue;
    moved.push_back(set_aside(checkpoint.path, prefix(checkpoint.path)));
  }
  if (!moved.empty()) sync_folder(run / "checkpoints");
  return moved;
}

}  // namespace wavroute
