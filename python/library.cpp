// The functions that only Python calls, as operators: torch.ops.wavroute.*.
#include <torch/library.h>

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "base/output.h"
#include "command.h"
#include "io/run_folder.h"
#include "train/process.h"
#include "train/process_group.h"

namespace wavroute {
namespace {

// wavroute::run_command(str[] words) -> int: the command in this process; the exit code.
int64_t run_command(const std::vector<std::string>& words) {
  std::vector<std::string> arguments = {"wavroute"};
  arguments.insert(arguments.end(), words.begin(), words.end());
  std::vector<char*> pointers;
  pointers.reserve(arguments.size() + 1);
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  prepare_streams();
  const int code = app::run_command(static_cast<int>(arguments.size()), pointers.data());
  std::fflush(nullptr);  // the interpreter knows nothing of these streams
  return code;
}

// wavroute::process_group_trouble() -> str: what torch.distributed said when a process was gone.
std::string trouble() { return process_group_trouble(); }

// wavroute::expect_repeated_signals() -> (): a launcher repeats the signals that it gets.
void expect_repeated_signals() { StopSignal::set_same_request(60.0); }

// wavroute::resolve_run(str run) -> str: the folder with the weights that a user means by RUN.
std::string resolve(const std::string& run) { return resolve_run(run).string(); }

}  // namespace

TORCH_LIBRARY_FRAGMENT(wavroute, m) {
  m.def("run_command(str[] words) -> int", TORCH_FN(run_command));
  m.def("process_group_trouble() -> str", TORCH_FN(trouble));
  m.def("resolve_run(str run) -> str", TORCH_FN(resolve));
  m.def("expect_repeated_signals() -> ()", TORCH_FN(expect_repeated_signals));
}

}  // namespace wavroute
