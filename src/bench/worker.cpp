#include "bench/worker.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "io/json_text.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr size_t kTailBytes = 2000;       // of standard error, kept for the message
constexpr size_t kLineBytes = 1U << 20U;  // no valid answer is longer
constexpr size_t kShownBytes = 200;       // of an answer that is not JSON
constexpr milliseconds kFarewell{2000};   // from "quit" or the end of output to SIGKILL

struct Channel {
  Descriptor ours, childs;
};

// Both ends are closed in any other child that is started meanwhile (close-on-exec).
Channel open_channel() {
  std::array<int, 2> ends{-1, -1};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    throw Failure(expectation("a channel to a child process", std::strerror(errno)));
  }
  return {Descriptor(ends[0]), Descriptor(ends[1])};
}

// Appends what can be read, at most one buffer. False at the end of the stream.
bool read_some(const Descriptor& from, std::string& into) {
  std::array<char, 65536> buffer;
  const ssize_t count = ::read(from.get(), buffer.data(), buffer.size());
  if (count < 0) return errno == EINTR || errno == EAGAIN;
  into.append(buffer.data(), static_cast<size_t>(count));
  return count > 0;
}

}  // namespace

Worker::Worker(const WorkerCommand& command) : label_(command.label) {
  auto input = open_channel(), output = open_channel(), errors = open_channel();
  try {
    process_.emplace(ProgramStart{.argv = command.argv,
                                  .env = command.env,
                                  .unset = command.unset,
                                  .input = input.childs.get(),
                                  .output = output.childs.get(),
                                  .errors = errors.childs.get()});
  } catch (const Failure& failure) {
    throw Failure(fmt::format("{}: {}", label_, failure.what()), failure.hint());
  }
  input_ = std::move(input.ours);
  output_ = std::move(output.ours);
  errors_ = std::move(errors.ours);
}

void Worker::kill() noexcept {
  process_->kill();
  input_.reset();
  output_.reset();
  errors_.reset();
}

void Worker::quit() noexcept {
  if (process_->has_ended()) return;
  ::send(input_.get(), "quit\n", 5, MSG_NOSIGNAL);
  input_.reset();
  try {
    static_cast<void>(process_->wait_for(kFarewell));
  } catch (const Failure&) {  // how it ended is not asked
  }
  kill();
}

// Takes what has arrived without waiting: a grandchild may keep the stream open.
void Worker::drain_errors() {
  for (pollfd fd = {errors_.get(), POLLIN, 0}; errors_.get() >= 0 && ::poll(&fd, 1, 0) > 0;) {
    if (!read_some(errors_, error_tail_)) errors_.reset();
    if (error_tail_.size() > kTailBytes) error_tail_.erase(0, error_tail_.size() - kTailBytes);
  }
}

void Worker::fail(const std::string& what, const std::string& given) {
  const bool ended_by_itself = process_->has_ended();
  drain_errors();
  kill();
  std::string hint;
  if (ended_by_itself && process_->signal() == SIGKILL) {
    hint = "the kernel ends a process so when memory runs out: try a smaller batch";
  }
  while (error_tail_.ends_with('\n')) error_tail_.pop_back();
  if (!error_tail_.empty()) {
    hint += (hint.empty() ? "" : "\n") + ("its error output ended with:\n" + error_tail_);
  }
  throw Failure(fmt::format("{}: {}", label_, expectation(what, given)), hint);
}

void Worker::send_line(const std::string& line) {
  const std::string text = line + "\n";
  // A failure is left to receive(), which finds out how the child ended.
  ::send(input_.get(), text.data(), text.size(), MSG_NOSIGNAL);
}

std::string Worker::next_line(milliseconds timeout, const std::string& what) {
  const auto deadline = Clock::now() + timeout;
  for (;;) {
    if (const auto end = pending_.find('\n'); end != std::string::npos) {
      std::string line = pending_.substr(0, end);
      pending_.erase(0, end + 1);
      return line;
    }
    if (pending_.size() > kLineBytes) fail(what, "more than 1 MiB without a line's end");
    const auto left = std::chrono::duration_cast<milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) {
      fail(what, fmt::format("nothing for {} s", static_cast<double>(timeout.count()) / 1000));
    }
    // A closed stream is passed as -1, which poll ignores.
    std::array<pollfd, 2> fds = {{{output_.get(), POLLIN, 0}, {errors_.get(), POLLIN, 0}}};
    if (::poll(fds.data(), fds.size(), static_cast<int>(std::min<int64_t>(left, 60000))) <= 0) {
      continue;  // a timeout is handled above; a signal is ignored
    }
    if (fds[1].revents != 0) drain_errors();
    if (fds[0].revents != 0 && !read_some(output_, pending_)) {
      const bool ended = process_->wait_for(kFarewell);
      fail(what, ended ? process_->end_in_words() : "the process closed its output");
    }
  }
}

nlohmann::json Worker::receive(milliseconds timeout, const std::string& what) {
  const std::string line = next_line(timeout, what);
  nlohmann::json answer;
  try {
    answer = parse_json(line, label_);
  } catch (const UserError&) {  // reported below, with the line
  }
  if (!answer.is_object()) {
    fail(what, fmt::format("a line that is no JSON object, '{}'", line.substr(0, kShownBytes)));
  }
  if (const auto error = answer.find("error"); error != answer.end()) {
    fail(what, error->is_string() ? error->get<std::string>() : error->dump());
  }
  return answer;
}

nlohmann::json Worker::ask(const std::string& line, milliseconds timeout, const std::string& what) {
  send_line(line);
  return receive(timeout, what);
}

}  // namespace wavroute
