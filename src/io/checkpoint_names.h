// The names of a checkpoint and of the files in it. The first two make it a Hugging Face folder.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace wavroute {

inline constexpr const char* kConfigFile = "config.json";
inline constexpr const char* kModelFile = "model.safetensors";
inline constexpr const char* kOptimizerFile = "optimizer.safetensors";
inline constexpr const char* kTokenizerFile = "tokenizer.json";
inline constexpr const char* kStateFile = "state.json";

// "step_7", the folder of a checkpoint.
[[nodiscard]] std::string checkpoint_name(int64_t step);
// Its step; nothing for any other name, "step_007" among them.
[[nodiscard]] std::optional<int64_t> step_of_checkpoint(std::string_view name);

}  // namespace wavroute
