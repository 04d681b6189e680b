#include "bench/busy.h"

#include <csignal>
#include <functional>

#include "wavroute/error.h"

namespace wavroute {
namespace {

[[noreturn]] int be_busy() {
  raise(SIGSTOP);
  for (;;) asm volatile("");
}

void wait_until_stopped(ChildProcess& process) {
  if (process.wait_until_stopped()) return;
  throw Failure(expectation("a busy process to stand still", "one that has ended"));
}

}  // namespace

BusyProcesses::BusyProcesses(int count) {
  for (int i = 0; i < count; ++i) processes_.emplace_back(std::function<int()>(be_busy));
  for (ChildProcess& process : processes_) wait_until_stopped(process);
}

std::vector<pid_t> BusyProcesses::ids() const {
  std::vector<pid_t> ids;
  for (const ChildProcess& process : processes_) ids.push_back(process.id());
  return ids;
}

void BusyProcesses::resume() {
  for (const ChildProcess& process : processes_) process.send(SIGCONT);
}

void BusyProcesses::pause() {
  for (const ChildProcess& process : processes_) process.send(SIGSTOP);
  for (ChildProcess& process : processes_) wait_until_stopped(process);
}

}  // namespace wavroute
