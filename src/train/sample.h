// Sample text from a model in training.
#pragma once

#include <cstdint>
#include <string>

#include "train/session.h"

namespace wavroute {

inline constexpr int64_t kPromptTokens = 32;  // of validation text, where a sample has no prompt

// The prompt of [sample], or the beginning of the validation text, and the model's continuation.
[[nodiscard]] std::string sample_text(const Session& session, const Progress& progress);

}  // namespace wavroute
