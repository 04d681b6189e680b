// What a run was made with: the content of env.json.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "train/session.h"

namespace wavroute::app {

// Writes env.json: the environment that the run started in, and under "resumed" each different one
// that it continued in at `step`. Returns a sentence that names what differs from before where that
// may change the last bits of results, or nothing.
std::optional<std::string> record_environment(const std::filesystem::path& file,
                                              const Session& session, int64_t step,
                                              int processes = 1);

// The sha256 of the training and the validation text that env.json names; nothing where there is
// none.
struct TextDigests {
  std::string train, valid;
};
[[nodiscard]] std::optional<TextDigests> recorded_text(const std::filesystem::path& file);

}  // namespace wavroute::app
