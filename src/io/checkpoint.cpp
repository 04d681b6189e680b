#include "io/checkpoint.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <stdio.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "io/file.h"
#include "io/json_text.h"
#include "wavroute/error.h"

namespace wavroute {
namespace fs = std::filesystem;
using nlohmann::json;
namespace {

constexpr std::string_view kPrefix = "step_";

std::string folder_name(int64_t step) { return fmt::format("{}{}", kPrefix, step); }

std::optional<int64_t> step_of(std::string_view name) {
  if (!name.starts_with(kPrefix)) return std::nullopt;
  const std::string_view digits = name.substr(kPrefix.size());
  int64_t step = -1;
  std::from_chars(digits.data(), digits.data() + digits.size(), step);
  if (step < 0 || folder_name(step) != name) return std::nullopt;  // step_, step_007, step_7.old
  return step;
}

// Out of the readers' sight in one step, then away.
void remove_checkpoint(const fs::path& checkpoint) {
  const fs::path hidden =
      checkpoint.parent_path() / temporary_name("removed-" + checkpoint.filename().string());
  remove_tree(hidden);
  if (::rename(checkpoint.c_str(), hidden.c_str()) != 0) {
    throw_system_error("remove", checkpoint, errno);
  }
  remove_tree(hidden);
}

// Puts the folder `from` in the place `to`; what was there is gone afterwards.
void replace_folder(const fs::path& from, const fs::path& to) {
  if (!fs::exists(to)) {
    if (::rename(from.c_str(), to.c_str()) != 0) throw_system_error("write", to, errno);
  } else if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) {
    sync_folder(to.parent_path());
    remove_tree(from);
  } else {
    // A file system that can't exchange: for a moment there is neither, and an earlier checkpoint
    // is the newest.
    remove_checkpoint(to);
    if (::rename(from.c_str(), to.c_str()) != 0) throw_system_error("write", to, errno);
  }
  sync_folder(to.parent_path());
}

FileDigest digest_of(const fs::path& path) {
  const MappedFile file(path);
  return {file.bytes().size(), sha256_hex(file.bytes())};
}

// "files" of state.json, once its form is checked.
std::map<std::string, FileDigest> listed_files(const json& state) {
  std::map<std::string, FileDigest> files;
  const auto found = state.find("files");
  if (found == state.end() || !found->is_object() || found->empty()) {
    throw UserError("state.json lists no files");
  }
  for (const auto& [name, entry] : found->items()) {
    const bool plain = !name.empty() && name != ".." && name.find('/') == std::string::npos;
    if (!plain || !entry.is_object() || !entry.contains("bytes") ||
        !entry["bytes"].is_number_unsigned() || !entry.contains("sha256") ||
        !entry["sha256"].is_string()) {
      throw UserError("state.json lists a file in a form that isn't ours");
    }
    files[name] = {entry["bytes"].get<uint64_t>(), entry["sha256"].get<std::string>()};
  }
  return files;
}

void check_size(const fs::path& path, uint64_t expected) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  const std::string name = path.filename().string();
  if (!fs::exists(status)) throw UserError(fmt::format("{} is missing", name));
  if (!fs::is_regular_file(status)) throw UserError(fmt::format("{} is no regular file", name));
  const uint64_t bytes = fs::file_size(path);
  if (bytes != expected) {
    throw UserError(fmt::format("{} has {} bytes, expected {}", name, bytes, expected));
  }
}

// Sizes only: cheap enough to look at every checkpoint.
std::optional<std::string> verify_sizes(const fs::path& checkpoint) {
  try {
    for (const auto& [name, digest] : listed_files(read_state(checkpoint))) {
      check_size(checkpoint / name, digest.bytes);
    }
  } catch (const std::exception& error) {
    return error.what();
  }
  return std::nullopt;
}

std::optional<Checkpoint> best_of(const std::vector<Checkpoint>& checkpoints) {
  std::optional<Checkpoint> best;
  double lowest = 0;
  for (const Checkpoint& checkpoint : checkpoints) {
    double loss = NAN;
    try {
      const json state = read_state(checkpoint.path);
      const auto found = state.find("val_loss");
      if (found != state.end() && found->is_number()) loss = found->get<double>();
    } catch (const Error&) {
      continue;  // unreadable: it doesn't compete
    }
    if (std::isfinite(loss) && (!best || loss < lowest)) {
      best = checkpoint;
      lowest = loss;
    }
  }
  return best;
}

}  // namespace

CheckpointWriter::CheckpointWriter(const fs::path& run, int64_t step)
    : final_(run / "checkpoints" / folder_name(step)),
      temporary_(run / "checkpoints" / temporary_name(folder_name(step))),
      step_(step) {
  remove_tree(temporary_);
  make_folders(temporary_);
}

CheckpointWriter::~CheckpointWriter() {
  std::error_code ignored;  // a destructor must not throw, and the name says that it is rubbish
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
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(temporary_)) {
    names.push_back(entry.path().filename().string());
  }
  json files = json::object();
  for (const std::string& name : names) {
    const fs::path path = temporary_ / name;
    const auto known = digests_.find(name);
    const FileDigest digest = known != digests_.end() ? known->second : digest_of(path);
    if (fs::file_size(path) != digest.bytes) {
      throw Failure(fmt::format("expected {} bytes as written, found {}, in {}", digest.bytes,
                                fs::file_size(path), path.string()));
    }
    sync_file(path);
    files[name] = {{"bytes", digest.bytes}, {"sha256", digest.sha256}};
  }
  state["step"] = step_;
  state["files"] = std::move(files);
  write_file_atomic(temporary_ / "state.json", state.dump(2) + "\n");  // syncs the folder as well
  replace_folder(temporary_, final_);
  temporary_.clear();
  return final_;
}

std::vector<Checkpoint> list_checkpoints(const fs::path& run) {
  const fs::path folder = run / "checkpoints";
  std::vector<Checkpoint> checkpoints;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    std::error_code ignored;
    const auto step = step_of(entry.path().filename().native());
    if (step && entry.is_directory(ignored)) checkpoints.push_back({*step, entry.path()});
  }
  if (error && error.value() != ENOENT) throw_system_error("list", folder, error.value());
  std::ranges::sort(checkpoints, {}, &Checkpoint::step);
  return checkpoints;
}

json read_state(const fs::path& checkpoint) {
  const fs::path path = checkpoint / "state.json";
  json state = read_json(path);
  if (!state.is_object()) {
    throw UserError(fmt::format("expected a JSON object, found none, in {}", path.string()),
                    "take another checkpoint");
  }
  return state;
}

std::optional<std::string> verify_checkpoint(const fs::path& checkpoint) {
  if (auto reason = verify_sizes(checkpoint)) return reason;
  try {
    for (const auto& [name, digest] : listed_files(read_state(checkpoint))) {
      if (sha256_file(checkpoint / name) != digest.sha256) {
        return fmt::format("{} does not match its checksum", name);
      }
    }
  } catch (const std::exception& error) {
    return error.what();
  }
  return std::nullopt;
}

std::optional<Checkpoint> newest_valid_checkpoint(const fs::path& run,
                                                  const OnSkippedCheckpoint& on_skip) {
  std::vector<Checkpoint> checkpoints = list_checkpoints(run);
  for (; !checkpoints.empty(); checkpoints.pop_back()) {
    const auto reason = verify_checkpoint(checkpoints.back().path);
    if (!reason) return checkpoints.back();
    if (on_skip) on_skip(checkpoints.back(), *reason);
  }
  return std::nullopt;
}

std::optional<Checkpoint> best_checkpoint(const fs::path& run) {
  return best_of(list_checkpoints(run));
}

void retain_checkpoints(const fs::path& run, int64_t keep, int64_t step) {
  std::vector<Checkpoint> checkpoints = list_checkpoints(run);
  std::erase_if(checkpoints, [&](const Checkpoint& checkpoint) {
    return checkpoint.step > step || verify_sizes(checkpoint.path).has_value();
  });
  const auto best = best_of(checkpoints);
  const auto count = static_cast<int64_t>(checkpoints.size());
  for (int64_t i = 0; i < count - std::max<int64_t>(keep, 1); ++i) {
    const Checkpoint& checkpoint = checkpoints[static_cast<size_t>(i)];
    if (!best || checkpoint.step != best->step) remove_checkpoint(checkpoint.path);
  }
}

}  // namespace wavroute
