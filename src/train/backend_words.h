// What the passes of a training run on, for its first line and for --dry-run.
#pragma once

#include <string>

#include "ops/backend.h"
#include "wavroute/config.h"

namespace wavroute {

// ops::describe, and on a GPU what runs on stock operators although our kernels are chosen, or why
// everything does.
[[nodiscard]] std::string backend_words(const ops::Backend& backend, at::Device device,
                                        Precision precision);

}  // namespace wavroute
