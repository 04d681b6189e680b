// What a run asks of its process: signals.
#pragma once

#include <array>
#include <csignal>

namespace wavroute {

// From its construction on, the first SIGINT, SIGTERM or SIGHUP only sets a mark; a second SIGINT
// or SIGTERM ends the process at once (a terminal that closes may send SIGHUP twice). A signal that
// was ignored stays so: SIGHUP under nohup, SIGINT of a background job in a script.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;
  [[nodiscard]] static bool requested() noexcept;
  // The process is about to end: the mark goes on being all that a signal does.
  static void stay() noexcept;
  // Signals that come within so many seconds of the first ask for the same (default: 0.5).
  static void set_same_request(double seconds) noexcept;
  // The first of them that came; 0: none yet.
  [[nodiscard]] static int first() noexcept;

 private:
  static constexpr std::array kStopSignals = {SIGINT, SIGTERM, SIGHUP};
  std::array<struct sigaction, kStopSignals.size()> before_{};
};

}  // namespace wavroute
