// Processes that do nothing but keep a core busy: the machine that a step is timed on as it mostly
// is. Torch-free.
#pragma once

#include <sys/types.h>

#include <vector>

namespace wavroute {

// Owns its processes: they end with this object, and with this process however it ends. They
// stand still until resume().
class BusyProcesses {
 public:
  // Throws Failure where they can't be started.
  explicit BusyProcesses(int count);
  ~BusyProcesses();
  BusyProcesses(const BusyProcesses&) = delete;
  BusyProcesses& operator=(const BusyProcesses&) = delete;

  void resume();
  // Returns when all stand still.
  void pause();

  [[nodiscard]] const std::vector<pid_t>& processes() const { return processes_; }

 private:
  void end() noexcept;

  std::vector<pid_t> processes_;
};

}  // namespace wavroute
