// Schemes with an option of each type, for the readers of configurations: the real ones need
// libtorch.
#pragma once

#include "config/scheme_options.h"

namespace wavroute::fuzz {

inline SchemeCatalog catalog() {
  const OptionSpec blocks = {"blocks", OptionType::kInt, std::string("auto"), "", true, {}};
  const OptionSpec p = {"p", OptionType::kFloat, 0.2, "", false, {}};
  const OptionSpec windows = {
      "windows", OptionType::kIntList, std::vector<int64_t>{1, 2}, "", false, {}};
  return {{"prenorm", "", {}},
          {"rezero", "", {}},
          {"layerscale", "", {}},
          {"block_layerscale", "", {blocks}},
          {"layerdrop", "", {p}},
          {"gated", "", {windows}},
          {"act", "", {}},
          {"denseformer", "", {}},
          {"mhc_lite", "", {}},
          {"full_attnres", "", {}},
          {"block_attnres", "", {blocks}},
          {"haares", "", {blocks}},
          {"wav", "", {blocks}}};
}

}  // namespace wavroute::fuzz
