#include "train/console.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <span>
#include <string>
#include <system_error>

#include "base/numbers.h"
#include "base/output.h"
#include "base/printable.h"
#include "base/terminal.h"
#include "wavroute/error.h"

namespace wavroute {

std::string format_line(const ProgressLine& line) {
  return fmt::format(
      "step {:>6}/{}  loss {:.4f}  bits/byte {:.4f}  lr {:.2e}  norm {:.3f}  {:.1f} ms  {} tok/s  "
      "{:.0f} % of peak  {}  ETA {}",
      line.step, line.steps, line.loss, line.bits_per_byte, line.lr, line.grad_norm, line.ms,
      format_count(line.tokens_per_s), line.percent_of_peak,
      format_bytes(static_cast<double>(line.memory_bytes)), format_duration(line.eta_seconds));
}

Console::Console(bool quiet, bool silent)
    : quiet_(quiet || silent),
      silent_(silent),
      has_bar_(!quiet_ && takes_escape_codes(STDERR_FILENO)) {}

Console::~Console() { clear_bar(); }

void Console::open_log(const std::filesystem::path& path) {
  try {
    detach_file(path);
    constexpr int kFlags = O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
    log_ = Descriptor(::open(path.c_str(), kFlags, 0666));
    if (log_.get() < 0) throw_system_error("open", path, errno);
    log_path_ = path;
  } catch (const Error& error) {
    warn_side_file(path, error.what());
  }
}

void Console::clear_bar() {
  if (bar_shown_) print_or_drop(stderr, "\r\x1b[K");
  bar_shown_ = false;
}

void Console::log(const std::string& line) {
  if (log_.get() < 0) return;
  const std::string text = terminal_text(line) + "\n";
  try {
    write_all(log_, std::as_bytes(std::span(text)), log_path_);
  } catch (const Error&) {  // the disk may have space again by the next line
  }
}

void Console::say(const std::string& line) {
  clear_bar();
  log(line);
  if (quiet_ || print_or_drop(stdout, terminal_text(line) + "\n") || stdout_lost_) return;
  stdout_lost_ = true;
  warn_plainly(fmt::format("standard output can't be written ({}); the run continues",
                           std::generic_category().message(errno)));
}

void Console::note(const std::string& line) {
  clear_bar();
  log(line);
  if (!quiet_) wavroute::note(line);
}

void Console::warn(const std::string& line) { warn_plainly("wavroute: " + line); }

void Console::warn_side_file(const std::filesystem::path& path, const std::string& why) {
  warn_plainly(fmt::format("warning: {} is missing or old ({}); the run continues",
                           path.filename().string(), why));
}

void Console::warn_plainly(const std::string& line) {
  clear_bar();
  log(line);
  if (!silent_) wavroute::note(line);
}

void Console::bar(int64_t step, int64_t steps, double eta_seconds) {
  if (!has_bar_) return;
  constexpr int64_t kCells = 30;
  const int64_t full = steps > 0 ? step * kCells / steps : kCells;
  bar_shown_ = print_or_drop(
      stderr, fmt::format("\r\x1b[K{}{} {}/{}  ETA {}", std::string(static_cast<size_t>(full), '='),
                          std::string(static_cast<size_t>(kCells - full), '.'), step, steps,
                          format_duration(eta_seconds)));
}

}  // namespace wavroute
