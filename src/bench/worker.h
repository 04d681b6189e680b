// A child process that answers each line of text with one line of JSON.
#pragma once

#include <chrono>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "io/child_process.h"
#include "io/file.h"

namespace wavroute {

// What to start. `argv[0]` is looked up in PATH; `env` is added to the parent's environment.
struct WorkerCommand {
  std::string label;  // how messages name it
  std::vector<std::string> argv;
  std::map<std::string, std::string> env;
  std::vector<std::string> unset = {};  // names that it does not get of the parent's environment
};

// Every failure is a Failure whose text names the label, what was expected and what came (the
// exit status or the signal, the timeout, the text that is no JSON); its hint ends with the last
// lines that the child wrote to its standard error.
class Worker {
 public:
  explicit Worker(const WorkerCommand& command);

  // The next line of the child as a JSON object. An object with the key "error" is a Failure.
  // `what` names the expected answer: "a training step".
  [[nodiscard]] nlohmann::json receive(std::chrono::milliseconds timeout, const std::string& what);
  // Sends one line and waits for its answer.
  [[nodiscard]] nlohmann::json ask(const std::string& line, std::chrono::milliseconds timeout,
                                   const std::string& what);
  // Sends "quit" and gives the child a moment to exit.
  void quit() noexcept;

 private:
  std::string next_line(std::chrono::milliseconds timeout, const std::string& what);
  void send_line(const std::string& line);

  void drain_errors();
  void kill() noexcept;
  [[noreturn]] void fail(const std::string& what, const std::string& given);

  std::string label_;
  std::optional<ChildProcess> process_;  // never empty once it is constructed
  Descriptor input_;   // a socket: a write to a dead child is an error code, not a SIGPIPE
  Descriptor output_;  // the child's standard output
  Descriptor errors_;  // the child's standard error
  std::string pending_;
  std::string error_tail_;
};

}  // namespace wavroute
