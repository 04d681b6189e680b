// Names that a run writes into its files.
#pragma once

#include <filesystem>

#include "wavroute/config.h"

namespace wavroute {

// UserError where a value of the configuration is not UTF-8: TOML and JSON hold nothing else, and a
// run that can't write its name can't be resumed.
void check_names(const Config& config);

// The same of the folder that --out names.
void check_out(const std::filesystem::path& folder);

}  // namespace wavroute
