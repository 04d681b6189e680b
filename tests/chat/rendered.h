// Rendering a template of a test.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>

#include "chat/template.h"
#include "wavroute/error.h"

namespace wavroute::testing {

inline std::string rendered(const std::string& text, const std::string& variables = "{}") {
  return ChatTemplate(text, "T").render(nlohmann::ordered_json::parse(variables),
                                        std::chrono::system_clock::time_point());
}

// What the UserError says of which reading or rendering ends.
inline std::string refusal(const std::string& text, const std::string& variables = "{}") {
  try {
    return "rendered: " + rendered(text, variables);
  } catch (const UserError& error) {
    return error.what();
  }
}

}  // namespace wavroute::testing
