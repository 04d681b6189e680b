// The names that a scope sets before it mentions them.
#pragma once

#include <string>
#include <vector>

#include "chat/syntax.h"

namespace wavroute::chat {

// Of the scope that `body` is run in; `target`: what a loop sets in it, or null. Jinja gives such a
// name to the scope from its beginning on: a loop in it that reads the name before it is set sees
// nothing, whatever the name means outside. A name that is set in a branch alone is no such name.
[[nodiscard]] std::vector<std::string> late_names(const Body& body, const Expression* target);

}  // namespace wavroute::chat
