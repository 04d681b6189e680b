// What a run was made with: the content of env.json.
#pragma once

#include <nlohmann/json.hpp>

#include "train/session.h"

namespace wavroute::app {

[[nodiscard]] nlohmann::ordered_json environment(const Session& session);

}  // namespace wavroute::app
