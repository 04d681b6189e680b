#include "base/terminal.h"

#include <unistd.h>

#include <cstdlib>
#include <string_view>

namespace wavroute {

bool is_terminal(int descriptor) { return isatty(descriptor) == 1; }

bool takes_escape_codes(int descriptor) {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return value == nullptr ? std::string_view() : std::string_view(value);
  };
  const std::string_view term = variable("TERM");
  return is_terminal(descriptor) && !term.empty() && term != "dumb" && variable("NO_COLOR").empty();
}

}  // namespace wavroute
