#include "io/checkpoint_state.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string_view>

#include "io/checkpoint_names.h"
#include "io/companions.h"
#include "io/file.h"
#include "io/json_text.h"

namespace wavroute {
namespace fs = std::filesystem;
using nlohmann::json;
namespace {

constexpr std::string_view kChecksumKey = "state_sha256";
constexpr size_t kDigits = 64;
constexpr uintmax_t kLargestState = 1 << 20;  // bytes; ours are about one KiB
// Every checkpoint holds these beside state.json, and lists no others but companions.
const std::set<std::string> kFiles = {kConfigFile, kModelFile, kOptimizerFile, kTokenizerFile};

bool is_known(const std::string& name) {
  return kFiles.contains(name) || std::ranges::find(kCompanionFiles, name) != kCompanionFiles.end();
}

// What stands before the step in a checkpoint's name.
constexpr std::string_view kPrefix = "step_";

bool is_digest(const json& value) {
  if (!value.is_string()) return false;
  const auto& text = value.get_ref<const std::string&>();
  return text.size() == kDigits && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

// The position of the checksum's digits in the text; npos if there is none in our format.
size_t checksum_position(std::string_view text) {
  const std::string before = fmt::format("\n  \"{}\": \"", kChecksumKey);
  const size_t found = text.find(before);
  if (found == text.npos || text.size() - found < before.size() + kDigits) return text.npos;
  return found + before.size();
}

// The SHA-256 of the text whose own digits are zeros.
std::string checksum_of(std::string text, size_t position) {
  text.replace(position, kDigits, kDigits, '0');
  return sha256_hex(text);
}

// Checks one state; every fault is a DamagedCheckpoint.
class StateCheck {
 public:
  StateCheck(const json& state, const fs::path& checkpoint)
      : state_(state), checkpoint_(checkpoint) {}

  void run() const {
    const auto found = integer("step", 0);
    if (!found) fail("step", "an integer of at least 0", nullptr);
    const int64_t step = *found;
    const std::string name = folder_name();
    const bool names_a_step = name.size() > kPrefix.size() && name.starts_with(kPrefix) &&
                              name.find_first_not_of("0123456789", kPrefix.size()) == name.npos;
    if (names_a_step && name != checkpoint_name(step)) {
      throw DamagedCheckpoint(
          fmt::format("{} says step {}, the folder is {}", kStateFile, step, name), checkpoint_);
    }
    const auto steps = integer("steps", 0);
    if (steps && *steps < step) {
      fail("steps", fmt::format("at least the step, {}", step), &state_.at("steps"));
    }
    integer("tokens", 0);
    // Of these, learning rates and frozen gates are fractions; a run only ever gets more steps.
    if (const auto planned = integer("schedule_steps", 1); planned && steps && *planned > *steps) {
      fail("schedule_steps", fmt::format("at most the steps, {}", *steps),
           &state_.at("schedule_steps"));
    }
    // Each step is one update of the optimizer.
    if (const auto updates = integer("updates", 0); updates && *updates != step) {
      fail("updates", fmt::format("the step, {}", step), &state_.at("updates"));
    }
    for (const char* key : {"val_loss", "bits_per_byte"}) {
      const json* value = find(key);
      if (value == nullptr || value->is_null()) continue;
      if (!value->is_number() || !std::isfinite(value->get<double>())) {
        fail(key, "a number or null", value);
      }
    }
    for (const char* key : {"train_sha256", "valid_sha256", "init_sha256"}) {
      const json* value = find(key);
      if (value != nullptr && !is_digest(*value) && *value != json(std::string())) {
        fail(key, "a SHA-256 in hexadecimal", value);
      }
    }
    check_files();
  }

  // Nothing where the key is missing.
  std::optional<int64_t> integer(const char* key, int64_t least) const {
    const json* value = find(key);
    if (value == nullptr) return std::nullopt;
    const bool fits = value->is_number_unsigned()
                          ? value->get<uint64_t>() <= uint64_t{std::numeric_limits<int64_t>::max()}
                          : value->is_number_integer();
    if (!fits || value->get<int64_t>() < least) {
      fail(key, fmt::format("an integer of at least {}", least), value);
    }
    return value->get<int64_t>();
  }

 private:
  [[noreturn]] void fail(std::string_view key, const std::string& expected,
                         const json* given) const {
    throw DamagedCheckpoint(
        fmt::format("{}: expected '{}' to be {}, given {}", kStateFile, key, expected,
                    given == nullptr ? "nothing" : json_excerpt(*given)),
        checkpoint_);
  }

  const json* find(const char* key) const {
    const auto found = state_.find(key);
    return found == state_.end() ? nullptr : &*found;
  }

  std::string folder_name() const {
    const fs::path name = checkpoint_.filename();
    return (name.empty() ? checkpoint_.parent_path().filename() : name).string();
  }

  void check_files() const {
    const json* files = find("files");
    if (files == nullptr || !files->is_object()) {
      throw DamagedCheckpoint(fmt::format("{} lists no files", kStateFile), checkpoint_);
    }
    std::set<std::string> names;
    for (const auto& [name, entry] : files->items()) {
      names.insert(name);
      if (!entry.is_object() || !entry.contains("bytes") || !entry["bytes"].is_number_unsigned() ||
          !entry.contains("sha256") || !is_digest(entry["sha256"])) {
        throw DamagedCheckpoint(fmt::format("{} lists a file in a form that isn't ours: {}",
                                            kStateFile, json_excerpt(json(name))),
                                checkpoint_);
      }
    }
    if (std::ranges::includes(names, kFiles) && std::ranges::all_of(names, is_known)) return;
    throw DamagedCheckpoint(
        fmt::format("{} lists other files than {}", kStateFile, fmt::join(kFiles, ", ")),
        checkpoint_);
  }

  const json& state_;
  const fs::path& checkpoint_;
};

std::string read_state_text(const fs::path& checkpoint) {
  const fs::path path = checkpoint / kStateFile;
  if (!is_there(path)) {
    throw DamagedCheckpoint(fmt::format("{} is missing", kStateFile), checkpoint);
  }
  std::error_code error;
  if (!fs::is_regular_file(path, error)) {
    throw DamagedCheckpoint(fmt::format("{} is no regular file", kStateFile), checkpoint);
  }
  if (const uintmax_t bytes = fs::file_size(path, error); !error && bytes > kLargestState) {
    throw DamagedCheckpoint(
        fmt::format("{} has {} bytes, expected at most {}", kStateFile, bytes, kLargestState),
        checkpoint);
  }
  return read_file(path);
}

json parse_state(const std::string& text, const fs::path& checkpoint) {
  std::string found = "something else than an object";
  try {
    json state = parse_json(text, (checkpoint / kStateFile).string());
    if (state.is_object()) return state;
  } catch (const UserError& error) {
    found = error.what();
  }
  throw DamagedCheckpoint(fmt::format("{} is no JSON object of ours: {}", kStateFile, found),
                          checkpoint);
}

// A checksum, if there is one, is checked first: a flipped bit in "format" would make an old state
// look newer than this version.
void check_checksum(const json& state, const std::string& text, const fs::path& checkpoint) {
  const auto format = state.find("format");
  if (format == state.end() && !state.contains(kChecksumKey)) return;  // format 1
  const size_t position = checksum_position(text);
  if (position == text.npos ||
      checksum_of(text, position) != std::string_view(text).substr(position, kDigits)) {
    throw DamagedCheckpoint(fmt::format("{} does not match its checksum", kStateFile), checkpoint);
  }
}

}  // namespace

DamagedCheckpoint::DamagedCheckpoint(const std::string& reason, const fs::path& checkpoint)
    : UserError(fmt::format("expected a whole checkpoint, given one in which {}, in {}", reason,
                            checkpoint.string()),
                "use another checkpoint, or train again"),
      reason_(reason) {}

std::string state_text(json state) {
  state["format"] = kCheckpointFormat;
  state[kChecksumKey] = std::string(kDigits, '0');
  std::string text = state.dump(2) + "\n";
  const size_t position = checksum_position(text);
  text.replace(position, kDigits, checksum_of(text, position));
  return text;
}

json read_state(const fs::path& checkpoint) {
  const std::string text = read_state_text(checkpoint);
  json state = parse_state(text, checkpoint);
  check_checksum(state, text, checkpoint);
  const StateCheck check(state, checkpoint);
  if (const auto format = check.integer("format", 1); format.value_or(1) > kCheckpointFormat) {
    throw expected(fmt::format("a checkpoint of format {} at most", kCheckpointFormat),
                   fmt::format("format {}", *format), fmt::format("in {}", checkpoint.string()),
                   "a newer version of wavroute wrote it: use that one");
  }
  check.run();
  return state;
}

std::map<std::string, FileDigest> listed_files(const json& state) {
  std::map<std::string, FileDigest> files;
  for (const auto& [name, entry] : state.at("files").items()) {
    files[name] = {entry["bytes"].get<uint64_t>(), entry["sha256"].get<std::string>()};
  }
  return files;
}

std::string checkpoint_name(int64_t step) { return fmt::format("{}{}", kPrefix, step); }

std::optional<int64_t> step_of_checkpoint(std::string_view name) {
  if (!name.starts_with(kPrefix)) return std::nullopt;
  const std::string_view digits = name.substr(kPrefix.size());
  int64_t step = -1;
  std::from_chars(digits.data(), digits.data() + digits.size(), step);
  if (step < 0 || checkpoint_name(step) != name) return std::nullopt;  // step_, step_7.old
  return step;
}

}  // namespace wavroute
