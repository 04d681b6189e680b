#include "train/sinks.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <utility>

#include "base/printable.h"
#include "io/python.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::seconds kLongestEnd(60);
constexpr std::chrono::milliseconds kPause(20);
constexpr int kExtraMissing = 3;  // the exit status of --check

fs::path own_executable() {
  std::error_code ignored;
  return fs::read_symlink("/proc/self/exe", ignored);
}

// BUILD/bin/wavroute -> BUILD/python, which an installed package needs not.
std::map<std::string, std::string> environment() {
  const fs::path built = own_executable().parent_path().parent_path() / "python";
  std::error_code ignored;
  if (!fs::exists(built / "wavroute/sink.py", ignored)) return {};
  const char* given = std::getenv("PYTHONPATH");
  const std::string before = given != nullptr && *given != '\0' ? std::string(given) + ":" : "";
  return {{"PYTHONPATH", before + built.string()}};
}

ProgramStart sink_program(std::vector<std::string> arguments) {
  ProgramStart start;
  start.argv = {find_python(own_executable()), "-m", "wavroute.sink"};
  for (std::string& argument : arguments) start.argv.push_back(std::move(argument));
  start.env = environment();
  return start;
}

std::pair<Descriptor, Descriptor> make_pipe() {
  std::array<int, 2> ends{-1, -1};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) throw_system_error("make", "a pipe", errno);
  return {Descriptor(ends[0]), Descriptor(ends[1])};
}

// What comes until the other end is closed, or until there is nothing for now.
std::string read_all(const Descriptor& from) {
  std::string text;
  std::array<char, 4096> part;
  while (true) {
    const ssize_t count = ::read(from.get(), part.data(), part.size());
    if (count > 0) text.append(part.data(), static_cast<size_t>(count));
    if (count == 0 || (count < 0 && errno != EINTR)) return text;
  }
}

std::string last_line(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text.substr(text.rfind('\n') + 1);  // the whole text where there is none
}

std::string joined(const std::vector<std::string>& names) {
  return fmt::format("{}", fmt::join(names, " "));
}

}  // namespace

void check_sinks(const std::vector<std::string>& names) {
  if (names.empty()) return;
  std::vector<std::string> arguments = {"--check", "--to"};
  arguments.insert(arguments.end(), names.begin(), names.end());
  ProgramStart start = sink_program(std::move(arguments));
  const std::string python = start.argv[0];
  const std::string without = "train.sinks = [] trains without";
  auto [told, tell] = make_pipe();
  start.output = start.errors = tell.get();
  std::optional<ChildProcess> child;
  try {
    child.emplace(start);
  } catch (const Failure& failure) {
    throw expected("a Python for train.sinks", failure.what(), {},
                   "WAVROUTE_PYTHON names one; " + without);
  }
  tell.reset();
  const std::string said = read_all(told);
  child->wait();
  if (child->exit_code() == 0) return;
  if (child->exit_code() == kExtraMissing) {
    // The packages to install, one word each.
    const std::string packages = last_line(said);
    throw expected(fmt::format("the Python packages of train.sinks = [{}]", fmt::join(names, ", ")),
                   fmt::format("no {} in {}", printable(packages), python), {},
                   fmt::format("{} -m pip install {}; {}", python, packages, without));
  }
  throw expected(
      fmt::format("the Python package wavroute for train.sinks in {}", python),
      printable(last_line(said)), {},
      fmt::format("{} -m pip install of this project, or PYTHONPATH; WAVROUTE_PYTHON names "
                  "another Python; {}",
                  python, without));
}

SinkProcess::SinkProcess(std::vector<std::string> names, const RunPaths& paths, Console& console)
    : names_(std::move(names)), paths_(paths), console_(console) {
  if (names_.empty()) return;
  try {
    std::vector<std::string> arguments = {paths_.root.string(), "--with-trainer", "--to"};
    arguments.insert(arguments.end(), names_.begin(), names_.end());
    ProgramStart start = sink_program(std::move(arguments));
    make_folders(paths_.sinks());
    const fs::path log_path = paths_.sinks_log();
    const Descriptor log(
        ::open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0666));
    if (log.get() < 0) throw_system_error("open", log_path, errno);
    auto [stop, until_closed] = make_pipe();
    auto [words, say] = make_pipe();
    start.input = stop.get();
    start.output = say.get();
    start.errors = log.get();
    child_.emplace(start);
    ::fcntl(words.get(), F_SETFL, O_NONBLOCK);
    until_closed_ = std::move(until_closed);
    words_ = std::move(words);
  } catch (const Error& error) {
    console_.warn(
        fmt::format("warning: train.sinks don't start ({}); the run continues", error.what()));
  }
}

void SinkProcess::pass_on() {
  line_ += read_all(words_);
  for (size_t end = line_.find('\n'); end != std::string::npos; end = line_.find('\n')) {
    has_spoken_ = true;
    console_.warn(
        fmt::format("warning: sink {}; the run continues without it", line_.substr(0, end)));
    line_.erase(0, end + 1);
  }
}

void SinkProcess::say_ended() {
  pass_on();
  if (child_->exit_code() != 0 && !has_spoken_) {
    std::string why = child_->end_in_words();
    try {
      const std::string said = last_line(read_file(paths_.sinks_log()));
      if (!said.empty()) why += ": " + said;
    } catch (const Error&) {  // then there is nothing to add
    }
    console_.warn(fmt::format("warning: train.sinks ended early ({}); the run continues", why));
  }
  if (child_->exit_code() != 0) {
    console_.warn(fmt::format("to forward the rest: python -m wavroute.sink {} --to {}",
                              paths_.root.string(), joined(names_)));
  }
  child_.reset();
}

void SinkProcess::look() {
  if (!child_) return;
  try {
    pass_on();
    if (child_->wait_for(std::chrono::milliseconds(0))) say_ended();
  } catch (const Error& error) {
    console_.warn(fmt::format("warning: train.sinks: {}; the run continues", error.what()));
    child_.reset();
  }
}

SinkProcess::~SinkProcess() {
  until_closed_.reset();
  const auto deadline = std::chrono::steady_clock::now() + kLongestEnd;
  while (child_ && std::chrono::steady_clock::now() < deadline) {
    try {
      static_cast<void>(child_->wait_for(kPause));
    } catch (const Error&) {  // look() says so
    }
    look();
  }
  if (!child_) return;
  console_.warn(
      fmt::format("warning: train.sinks did not end within {} s of the run and are stopped; to "
                  "forward the rest: "
                  "python -m wavroute.sink {} --to {}",
                  kLongestEnd.count(), paths_.root.string(), joined(names_)));
}

}  // namespace wavroute
