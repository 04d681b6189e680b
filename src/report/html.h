// The report: one self-contained HTML page.
#pragma once

#include <filesystem>
#include <span>

namespace wavroute {

// Writes a page about run folders and compare folders (those with a compare.json) to `out`, by an
// atomic rename. The page loads nothing: style, script and data are inside. Throws UserError for a
// folder that is neither and for a broken file in one; Failure where `out` can't be written.
void write_report(std::span<const std::filesystem::path> runs_or_compare_folders,
                  const std::filesystem::path& out);

}  // namespace wavroute
