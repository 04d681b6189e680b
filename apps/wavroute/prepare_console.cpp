#include "prepare_console.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "base/numbers.h"
#include "base/output.h"
#include "base/terminal.h"

namespace wavroute::app {
namespace {

constexpr double kBarPause = 0.2, kLinePause = 10.0;  // seconds
constexpr size_t kCells = 30;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

PrepareConsole::PrepareConsole() : has_bar_(takes_escape_codes(STDERR_FILENO)) {}

void PrepareConsole::show(const PrepareProgress& progress) {
  if (progress.phase != phase_) {
    phase_ = progress.phase;
    began_ = Clock::now();
    begun_at_ = progress.done;
    shown_ = has_bar_ ? std::nullopt : std::optional(began_);  // no line for what is over at once
  }
  if (shown_ && seconds_since(*shown_) < (has_bar_ ? kBarPause : kLinePause)) return;
  shown_ = Clock::now();
  if (has_bar_) {
    print_or_drop(stderr, fmt::format("\r\x1b[K{}", text(progress)));
  } else {
    note(text(progress));
  }
}

void PrepareConsole::clear() {
  if (has_bar_ && shown_) print_or_drop(stderr, "\r\x1b[K");
  shown_.reset();
}

std::string PrepareConsole::text(const PrepareProgress& progress) const {
  const auto done = static_cast<double>(progress.done), total = static_cast<double>(progress.total);
  std::string line;
  if (has_bar_ && total > 0) {
    const auto full = std::min(kCells, static_cast<size_t>(done / total * kCells));
    line = std::string(full, '=') + std::string(kCells - full, '.') + " ";
  }
  line += progress.phase == PrepareProgress::Phase::kRead ? "read " : "tokenised ";
  line += format_bytes(done);
  if (total > 0) line += fmt::format(" of {}", format_bytes(total));
  line += fmt::format(", {} documents", format_count(static_cast<double>(progress.documents)));
  const double seconds = seconds_since(began_);
  const double rate = (done - static_cast<double>(begun_at_)) / std::max(seconds, 1e-3);
  if (seconds > 1.0 && rate > 0) {
    line += fmt::format(", {}/s", format_bytes(rate));
    if (total > done) line += fmt::format(", ETA {}", format_duration((total - done) / rate));
  }
  return line;
}

}  // namespace wavroute::app
