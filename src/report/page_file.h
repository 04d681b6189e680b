// The static parts of the page, from src/report/page/, as the build embedded them.
#pragma once

#include <string_view>

namespace wavroute {

// The content of src/report/page/NAME; empty for a name that isn't embedded.
[[nodiscard]] std::string_view page_file(std::string_view name);

}  // namespace wavroute
