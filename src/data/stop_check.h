// Whether somebody wants the reading of sources to end.
#pragma once

#include <functional>

#include "io/file.h"

namespace wavroute {

// Asked while a source keeps its reader waiting, and between parts of long work; true ends it.
// Empty: nobody asks.
using StopCheck = std::function<bool()>;

[[nodiscard]] inline bool says_stop(const StopCheck& is_stopped) {
  return is_stopped && is_stopped();
}

struct ReadingStopped {};  // thrown where a StopCheck said so

// Returns once a read of `file` will not wait. Throws ReadingStopped.
void wait_for_data(const Descriptor& file, const StopCheck& is_stopped);

}  // namespace wavroute
