#include "config/end_tokens.h"

#include <fmt/format.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "io/checkpoint_names.h"
#include "io/companions.h"
#include "io/file.h"
#include "io/json_text.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

constexpr const char* kKey = "eos_token_id";

// What one file says; nothing where it isn't there or names none.
std::optional<std::vector<uint32_t>> end_tokens_of(const std::filesystem::path& file) {
  if (!is_there(file)) return std::nullopt;
  const nlohmann::json config = read_json(file);
  const auto found = config.is_object() ? config.find(kKey) : config.end();
  if (found == config.end() || found->is_null()) return std::nullopt;
  std::vector<uint32_t> tokens;
  for (const nlohmann::json& item : found->is_array() ? *found : nlohmann::json::array({*found})) {
    const auto token = json_integer(item);
    if (!token) {
      throw expected(fmt::format("an integer, a list of them or null as {}", kKey),
                     json_excerpt(*found), fmt::format("in {}", file.string()),
                     "--ignore-eos generates without it");
    }
    const bool is_a_token = *token >= 0 && *token <= std::numeric_limits<uint32_t>::max();
    if (is_a_token) tokens.push_back(static_cast<uint32_t>(*token));
  }
  return tokens;
}

}  // namespace

std::vector<uint32_t> read_end_tokens(const std::filesystem::path& folder) {
  for (const char* name : {kGenerationConfigFile, kConfigFile}) {
    if (auto tokens = end_tokens_of(folder / name)) return *std::move(tokens);
  }
  return {};
}

}  // namespace wavroute
