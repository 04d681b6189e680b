// Names that a run writes into its files.
#pragma once

#include <filesystem>

#include "wavroute/config.h"

namespace wavroute {

// UserError where a value of the configuration or the run folder's name is not UTF-8: TOML and JSON
// hold nothing else, and a run that can't write its name can't be resumed.
void check_names(const Config& config, const std::filesystem::path& run);

}  // namespace wavroute
