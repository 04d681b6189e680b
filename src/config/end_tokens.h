// The tokens that end a text of a model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace wavroute {

// eos_token_id of generation_config.json, or where that names none, of config.json: an integer or
// a list of them. Empty where neither names one. A number that no token has (-1) ends nothing.
// UserError for a value of another kind.
[[nodiscard]] std::vector<uint32_t> read_end_tokens(const std::filesystem::path& folder);

}  // namespace wavroute
