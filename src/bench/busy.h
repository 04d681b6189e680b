// Processes that only keep a core busy, to time steps on a machine that is shared, as most are.
// Torch-free.
#pragma once

#include <sys/types.h>

#include <vector>

namespace wavroute {

// Owns its processes: they end with this object, and with this process however it ends. They are
// stopped until resume().
class BusyProcesses {
 public:
  // Throws Failure if they can't be started.
  explicit BusyProcesses(int count);
  ~BusyProcesses();
  BusyProcesses(const BusyProcesses&) = delete;
  BusyProcesses& operator=(const BusyProcesses&) = delete;

  void resume();
  // Returns when all are stopped.
  void pause();

  [[nodiscard]] const std::vector<pid_t>& processes() const { return processes_; }

 private:
  void end() noexcept;

  std::vector<pid_t> processes_;
};

}  // namespace wavroute
