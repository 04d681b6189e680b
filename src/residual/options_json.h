// A scheme and its options as the object that checkpoints have of them.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>

#include "wavroute/options.h"

namespace wavroute {

// `options` as the checkpoint's object `residual` ({"scheme": name, ...}) and back; reading checks
// names and types as for a configuration. `where` names the file in errors.
[[nodiscard]] nlohmann::json residual_to_json(const std::string& scheme, const Options& options);
[[nodiscard]] std::pair<std::string, Options> residual_from_json(const nlohmann::json& object,
                                                                 const std::string& where);

}  // namespace wavroute
