#include "waiting.h"

#include <cstdlib>
#include <cstring>

namespace wavroute::app {

OpenMpWaiting openmp_waiting() {
  const char* const ours = std::getenv("WAVROUTE_SPINCOUNT");
  const char* const spins = std::getenv("GOMP_SPINCOUNT");
  const char* const policy = std::getenv("OMP_WAIT_POLICY");
  OpenMpWaiting waiting;
  if (spins != nullptr)
    waiting.setting = std::string("GOMP_SPINCOUNT=") + spins;
  else if (policy != nullptr)
    waiting.setting = std::string("OMP_WAIT_POLICY=") + policy;
  waiting.is_ours = spins != nullptr && ours != nullptr && std::strcmp(spins, ours) == 0;
  return waiting;
}

}  // namespace wavroute::app
