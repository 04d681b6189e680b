// Child processes: a program that is started, or a copy of this one that runs a function.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <csignal>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace wavroute {

struct ProgramStart {
  std::vector<std::string> argv;                // argv[0] is looked up in PATH
  std::map<std::string, std::string> env = {};  // added to the environment of this process
  std::vector<std::string> unset = {};          // names that it does not get of that environment
  // Descriptors that become its standard streams; -1: /dev/null.
  int input = -1, output = -1, errors = -1;
};

// Owns the child: destroying it kills the child if it is still there, and reaps it. The child gets
// a signal when the thread that started it ends, however it does.
//
// It starts with no signal blocked and with none of our handlers: what they would note is lost with
// the exec, and a signal to stop must end the child instead. What is ignored stays so (SIGHUP under
// nohup), but for SIGPIPE, which this program ignores for its own output.
class ChildProcess {
 public:
  // Throws Failure where the program can't be started. Dies with this process by SIGTERM.
  explicit ChildProcess(const ProgramStart& start);
  // A copy of this process that calls `action` and ends with what it returns, or with 1 where it
  // throws. With several threads only calls that are safe after a fork are allowed in it. Keeps the
  // handlers; dies with this process by SIGKILL.
  explicit ChildProcess(const std::function<int()>& action);
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&&) = delete;
  ~ChildProcess() { kill(); }

  [[nodiscard]] pid_t id() const noexcept { return id_; }
  void send(int signal) const noexcept;
  // SIGKILL, and waits.
  void kill() noexcept;

  // Waits for its end; the one with a time gives false where that is over first. Throws Failure
  // where the system doesn't say how it ended.
  void wait();
  [[nodiscard]] bool wait_for(std::chrono::milliseconds time);
  // Waits until a signal has stopped it; false where it has ended instead.
  [[nodiscard]] bool wait_until_stopped();

  // How it ended; only after that.
  [[nodiscard]] bool has_ended() const noexcept { return ended_; }
  [[nodiscard]] int signal() const noexcept;     // that ended it; 0: none did
  [[nodiscard]] int exit_code() const noexcept;  // 128 + signal where one ended it
  // "the process ended with exit status 3"
  [[nodiscard]] std::string end_in_words() const;

 private:
  [[nodiscard]] bool reap(int options);

  pid_t id_ = -1;
  std::string name_;  // in messages
  bool ended_ = false;
  int status_ = 0;  // of waitpid
};

}  // namespace wavroute
