#include "compare/child.h"

#include <fcntl.h>

#include <cerrno>
#include <chrono>
#include <csignal>

#include "io/child_process.h"
#include "io/file.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

constexpr size_t kTail = 2000;  // bytes
constexpr std::chrono::milliseconds kPause(20);

}  // namespace

ChildResult run_child(const std::vector<std::string>& argv, const std::filesystem::path& log,
                      const std::function<bool()>& stop) {
  detach_file(log);
  constexpr int kFlags = O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC;
  const Descriptor output(::open(log.c_str(), kFlags, 0644));
  if (output.get() < 0) throw_system_error("write", log, errno);
  ChildProcess child(ProgramStart{.argv = argv, .output = output.get(), .errors = output.get()});
  bool told = false;
  while (!child.wait_for(kPause)) {
    if (told || !stop()) continue;
    child.send(SIGTERM);
    told = true;
  }
  const std::string text = read_file(log);
  return {child.exit_code(), text.size() > kTail ? text.substr(text.size() - kTail) : text};
}

}  // namespace wavroute
