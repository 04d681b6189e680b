// How OpenMP's threads wait in this process.
#pragma once

#include <string>

namespace wavroute::app {

struct OpenMpWaiting {
  std::string setting;   // "GOMP_SPINCOUNT=10000"; empty: the library's own default
  bool is_ours = false;  // this program made it, not the user
};

[[nodiscard]] OpenMpWaiting openmp_waiting();

}  // namespace wavroute::app
