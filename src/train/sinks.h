// Forwards metrics.jsonl to other programs (train.sinks): `python -m wavroute.sink`, a child
// process that follows the file. Training never waits for it, and goes on without it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "io/child_process.h"
#include "io/file.h"
#include "io/run_folder.h"
#include "train/console.h"

namespace wavroute {

// UserError where the Python that runs the sinks, its package wavroute or what a sink imports is
// missing. Before a run's folder is made.
void check_sinks(const std::vector<std::string>& names);

class SinkProcess {
 public:
  // Starts it, if there are names. Trouble costs a warning, now and later. config.toml is there;
  // the console outlives this.
  SinkProcess(std::vector<std::string> names, const RunPaths& paths, Console& console);
  // Lets it forward what is there, and waits for it; a minute at most.
  ~SinkProcess();
  SinkProcess(const SinkProcess&) = delete;
  SinkProcess& operator=(const SinkProcess&) = delete;

  // Passes on what it has to say, and says if it has ended. A system call or two.
  void look();

 private:
  void pass_on();
  void say_ended();

  std::vector<std::string> names_;
  RunPaths paths_;
  Console& console_;
  Descriptor until_closed_;  // its standard input: closed when the run has ended, however it does
  Descriptor words_;         // a line for each sink that it gave up
  std::string line_;         // of these, the unfinished one
  bool has_spoken_ = false;
  std::optional<ChildProcess> child_;
};

}  // namespace wavroute
