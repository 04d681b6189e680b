// How far a preparation of texts is, on stderr.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "data/prepare.h"

namespace wavroute::app {

// A bar on a terminal, else a line every ten seconds.
class PrepareConsole {
 public:
  PrepareConsole();
  ~PrepareConsole() { clear(); }
  PrepareConsole(const PrepareConsole&) = delete;
  PrepareConsole& operator=(const PrepareConsole&) = delete;

  void show(const PrepareProgress& progress);
  void clear();

 private:
  using Clock = std::chrono::steady_clock;

  [[nodiscard]] std::string text(const PrepareProgress& progress) const;

  bool has_bar_;
  std::optional<PrepareProgress::Phase> phase_;
  uint64_t begun_at_ = 0;  // bytes, when the phase began here
  Clock::time_point began_;
  std::optional<Clock::time_point> shown_;
};

}  // namespace wavroute::app
