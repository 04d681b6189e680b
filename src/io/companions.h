// The small files beside a model's weights and tokenizer that say how it is used: its marks, the
// tokens that end its texts, its chat template. What is trained from the model keeps them.
#pragma once

#include <array>
#include <filesystem>
#include <map>
#include <string>

namespace wavroute {

inline constexpr const char* kTokenizerConfigFile = "tokenizer_config.json";
inline constexpr const char* kGenerationConfigFile = "generation_config.json";
inline constexpr const char* kChatTemplateFile = "chat_template.jinja";
inline constexpr std::array kCompanionFiles = {kTokenizerConfigFile, kGenerationConfigFile,
                                               kChatTemplateFile};

using Companions = std::map<std::string, std::string>;  // a file's name -> its content

// Those that are in the folder. UserError for one that can't be read or is larger than 16 MiB.
[[nodiscard]] Companions read_companions(const std::filesystem::path& folder);

}  // namespace wavroute
