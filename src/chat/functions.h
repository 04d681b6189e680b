// The global functions of chat templates.
#pragma once

#include <chrono>
#include <optional>
#include <string_view>

#include "chat/arguments.h"
#include "chat/value.h"

namespace wavroute::chat {

// range, dict, namespace, raise_exception, strftime_now; nothing for another name. UserError for a
// name that Jinja or `transformers` know and the subset doesn't.
[[nodiscard]] std::optional<Value> find_function(std::string_view name, Work& work);

// `now`: what strftime_now() shows, in the time zone of this machine.
[[nodiscard]] Value call_function(std::string_view name, const Arguments& arguments,
                                  std::chrono::system_clock::time_point now, Work& work);

}  // namespace wavroute::chat
