// Processes that only keep a core busy, to time steps on a machine that is shared, as most are.
// Torch-free.
#pragma once

#include <sys/types.h>

#include <vector>

#include "io/child_process.h"

namespace wavroute {

// Owns its processes: they end with this object, and with this process however it ends. They are
// stopped until resume().
class BusyProcesses {
 public:
  // Throws Failure if they can't be started.
  explicit BusyProcesses(int count);

  void resume();
  // Returns when all are stopped.
  void pause();

  [[nodiscard]] std::vector<pid_t> ids() const;

 private:
  std::vector<ChildProcess> processes_;
};

}  // namespace wavroute
