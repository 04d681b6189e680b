// Which process made something on disk, so that another can tell whether it still runs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace wavroute {

struct ProcessIdentity {
  // 16 hexadecimal digits for the machine since it started and the PID namespace: process numbers
  // of another host, of a container, or from before a restart mean nothing here. All zero = not
  // known.
  std::string place;
  int64_t pid = 0;
  uint64_t start = 0;  // clock ticks since the machine started; 0 = not known

  // "PLACE-PID-START"
  [[nodiscard]] std::string text() const;
  // Reads text() back; pid 0 for anything else.
  [[nodiscard]] static ProcessIdentity parse(std::string_view text);
};

[[nodiscard]] ProcessIdentity this_process();

// Whether that process has ended, as far as this one can know it: never true for another place.
[[nodiscard]] bool is_known_dead(const ProcessIdentity& process);

// The machine's name, for messages.
[[nodiscard]] std::string host_name();

}  // namespace wavroute
