// The functions that only Python calls, as operators: torch.ops.wavroute.*.
#include <torch/library.h>

#include <cstdint>
#include <string>
#include <vector>

#include "command.h"

namespace wavroute {
namespace {

// wavroute::run_command(str[] words) -> int: the command in this process; the exit code.
int64_t run_command(const std::vector<std::string>& words) {
  std::vector<std::string> arguments = {"wavroute"};
  arguments.insert(arguments.end(), words.begin(), words.end());
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  return app::run_command(static_cast<int>(arguments.size()), pointers.data());
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(wavroute, m) {
  m.def("run_command(str[] words) -> int", TORCH_FN(run_command));
}

}  // namespace wavroute
