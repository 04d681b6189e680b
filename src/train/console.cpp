#include "train/console.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/terminal.h"
#include "report/table.h"

namespace wavroute {

std::string format_duration(double seconds) {
  const auto total = static_cast<int64_t>(std::llround(std::max(seconds, 0.0)));
  if (total >= 3600) {
    return fmt::format("{}:{:02}:{:02}", total / 3600, total / 60 % 60, total % 60);
  }
  return fmt::format("{:02}:{:02}", total / 60, total % 60);
}

std::string format_line(const ProgressLine& line) {
  return fmt::format(
      "step {:>6}/{}  loss {:.4f}  bits/byte {:.4f}  lr {:.2e}  norm {:.3f}  {:.1f} ms  {} tok/s  "
      "{:.0f} % of peak  {}  ETA {}",
      line.step, line.steps, line.loss, line.bits_per_byte, line.lr, line.grad_norm, line.ms,
      format_count(line.tokens_per_s), line.percent_of_peak,
      format_bytes(static_cast<double>(line.memory_bytes)), format_duration(line.eta_seconds));
}

Console::Console(bool quiet)
    : quiet_(quiet), has_bar_(!quiet && takes_escape_codes(STDERR_FILENO)) {}

Console::~Console() { clear_bar(); }

void Console::open_log(const std::filesystem::path& path) { log_.open(path, std::ios::app); }

void Console::clear_bar() {
  if (bar_shown_) fmt::print(stderr, "\r\x1b[K");
  bar_shown_ = false;
}

void Console::say(const std::string& line) {
  clear_bar();
  if (!quiet_) {
    fmt::print("{}\n", line);
    std::fflush(stdout);
  }
  if (log_.is_open()) log_ << line << std::endl;
}

void Console::note(const std::string& line) {
  clear_bar();
  if (!quiet_) fmt::print(stderr, "{}\n", line);
  if (log_.is_open()) log_ << line << std::endl;
}

void Console::warn(const std::string& line) {
  clear_bar();
  fmt::print(stderr, "wavroute: {}\n", line);
  if (log_.is_open()) log_ << line << std::endl;
}

void Console::bar(int64_t step, int64_t steps, double eta_seconds) {
  if (!has_bar_) return;
  constexpr int64_t kCells = 30;
  const int64_t full = steps > 0 ? step * kCells / steps : kCells;
  fmt::print(stderr, "\r\x1b[K{}{} {}/{}  ETA {}", std::string(static_cast<size_t>(full), '='),
             std::string(static_cast<size_t>(kCells - full), '.'), step, steps,
             format_duration(eta_seconds));
  std::fflush(stderr);
  bar_shown_ = true;
}

}  // namespace wavroute
