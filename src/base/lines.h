// The lines of a text.
#pragma once

#include <string_view>
#include <vector>

namespace wavroute {

// Without their ends, "\n" or "\r\n"; what stands behind the last end is a line unless it is empty.
[[nodiscard]] std::vector<std::string_view> lines_of(std::string_view text);

}  // namespace wavroute
