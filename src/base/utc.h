// Points in time as text.
#pragma once

#include <chrono>
#include <string>

namespace wavroute {

// "2026-06-01T12:30:05Z"
[[nodiscard]] std::string format_utc(std::chrono::system_clock::time_point time);
[[nodiscard]] inline std::string utc_now() { return format_utc(std::chrono::system_clock::now()); }

}  // namespace wavroute
