// The files that a comparison leaves in its folder, but for the page.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "report/comparison.h"

namespace wavroute {

inline constexpr const char* kRowsCsv = "rows.csv";
inline constexpr const char* kRowsSqlite = "rows.sqlite";

// compare.json; at the end also rows.csv and rows.sqlite, whose failure is only said.
void write_results(const Comparison& comparison, const std::filesystem::path& out, bool is_end,
                   const std::function<void(const std::string&)>& say);

}  // namespace wavroute
