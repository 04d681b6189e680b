// A child process that runs to its end.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace wavroute {

struct ChildResult {
  int exit_code = 0;       // 128 + signal if a signal ended it
  std::string error_tail;  // the end of what it wrote to its standard error
};

// Runs `argv` with no standard input; its standard output and error go to the file `log`. Once
// `stop` answers true the child gets a SIGTERM, and so it does if this process dies. Throws an
// Error where the log can't be written or the program can't be started.
[[nodiscard]] ChildResult run_child(const std::vector<std::string>& argv,
                                    const std::filesystem::path& log,
                                    const std::function<bool()>& stop);

}  // namespace wavroute
