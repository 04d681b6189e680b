// The paragraph on top of a table and of the page. It claims no more than the numbers do.
#pragma once

#include <string>

#include "report/table.h"

namespace wavroute {

// What was compared, how it ended, which differences are shown, and what they are worth.
[[nodiscard]] std::string summary_paragraph(const Comparison& comparison, const Table& table);

}  // namespace wavroute
