// state.json of a checkpoint: its form, its own checksum, and what its values may be.
//
// Format 1 (from before formats were numbered) has no "format" and no "state_sha256". Format 2 has
// both.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "wavroute/error.h"
#include "wavroute/safetensors.h"

namespace wavroute {

inline constexpr int64_t kCheckpointFormat = 2;

// What is wrong with a checkpoint itself, as opposed to trouble in reading it (no permission, a
// broken device), which says nothing about its content.
class DamagedCheckpoint : public UserError {
 public:
  // "REASON, in CHECKPOINT"
  DamagedCheckpoint(const std::string& reason, const std::filesystem::path& checkpoint);
  [[nodiscard]] const std::string& reason() const noexcept { return reason_; }

 private:
  std::string reason_;
};

// `state`, in the newest format and with its checksum.
[[nodiscard]] std::string state_text(nlohmann::json state);

// The content of a checkpoint's state.json, every value of it checked: types, ranges, the step
// against the name of the folder, the list of files against what a checkpoint holds. Throws
// DamagedCheckpoint, and UserError for the format of a newer version.
[[nodiscard]] nlohmann::json read_state(const std::filesystem::path& checkpoint);

// "files" of a state that read_state returned: sizes and checksums by name.
[[nodiscard]] std::map<std::string, FileDigest> listed_files(const nlohmann::json& state);

}  // namespace wavroute
