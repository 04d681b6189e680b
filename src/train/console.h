// The output of a training run: to the terminal and to train.log.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "io/file.h"

namespace wavroute {

// One console line per interval.
struct ProgressLine {
  int64_t step = 0, steps = 0;
  double loss = 0.0;  // mean of the interval, nats per token
  double bits_per_byte = 0.0;
  double lr = 0.0;
  double grad_norm = 0.0;
  double ms = 0.0;  // per step
  double tokens_per_s = 0.0;
  double percent_of_peak = 0.0;
  int64_t memory_bytes = 0;
  double eta_seconds = 0.0;
};

[[nodiscard]] std::string format_line(const ProgressLine& line);

// Training results (header, intervals, validation) go to stdout; messages about the process (a
// warning, where it resumed, how to continue, the next command) to stderr; everything to the log. A
// bar is drawn on stderr if that is a terminal. Nothing here throws: a stream that is full or gone
// is skipped, and the log continues.
class Console {
 public:
  // `silent`: one of several processes; it says nothing at all, since the first speaks for all.
  explicit Console(bool quiet, bool silent = false);
  ~Console();
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  // From now on lines are appended to this file too. One that is a link or has a second name
  // becomes a file of its own first (detach_file). Trouble costs a warning, and there is no log.
  void open_log(const std::filesystem::path& path);
  void say(const std::string& line);
  void note(const std::string& line);  // to stderr, unless quiet
  void warn(const std::string& line);
  // Warns that a file that the run can do without couldn't be written.
  void warn_side_file(const std::filesystem::path& path, const std::string& why);
  void bar(int64_t step, int64_t steps, double eta_seconds);

 private:
  void clear_bar();
  void log(const std::string& line);
  void warn_plainly(const std::string& line);

  bool quiet_;
  bool silent_;
  bool has_bar_;
  bool bar_shown_ = false;
  bool stdout_lost_ = false;  // said once
  Descriptor log_;
  std::filesystem::path log_path_;
};

}  // namespace wavroute
