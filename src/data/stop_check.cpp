#include "data/stop_check.h"

#include <poll.h>

namespace wavroute {

void wait_for_data(const Descriptor& file, const StopCheck& is_stopped) {
  if (!is_stopped) return;
  // A signal that arrives just before the call interrupts nothing.
  constexpr int kPause = 100;  // ms
  pollfd waiting{file.get(), POLLIN, 0};
  do {
    if (is_stopped()) throw ReadingStopped{};
  } while (::poll(&waiting, 1, kPause) <= 0);
}

}  // namespace wavroute
