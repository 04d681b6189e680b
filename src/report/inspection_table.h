// The document of wavroute inspect as text and as a page.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace wavroute {

// Tables of the sublayers and of the groups of tokens, and the verdicts, in lines for a terminal.
[[nodiscard]] std::string inspection_text(const nlohmann::ordered_json& inspection);

// One self-contained HTML page.
[[nodiscard]] std::string inspection_page(const nlohmann::ordered_json& inspection);

}  // namespace wavroute
