#include "compare/child.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "io/file.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

constexpr size_t kTail = 2000;  // bytes

// posix_spawn's list of what to do with descriptors.
class FileActions {
 public:
  FileActions() { posix_spawn_file_actions_init(&actions_); }
  ~FileActions() { posix_spawn_file_actions_destroy(&actions_); }
  FileActions(const FileActions&) = delete;
  FileActions& operator=(const FileActions&) = delete;
  posix_spawn_file_actions_t* get() { return &actions_; }

 private:
  posix_spawn_file_actions_t actions_;
};

}  // namespace

ChildResult run_child(const std::vector<std::string>& argv, const std::filesystem::path& log) {
  FileActions actions;
  const std::string path = log.string();
  posix_spawn_file_actions_addopen(actions.get(), STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(actions.get(), STDOUT_FILENO, path.c_str(),
                                   O_WRONLY | O_CREAT | O_TRUNC, 0644);
  posix_spawn_file_actions_adddup2(actions.get(), STDOUT_FILENO, STDERR_FILENO);
  std::vector<std::string> words = argv;
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);

  pid_t child = 0;
  const int error =
      posix_spawn(&child, words[0].c_str(), actions.get(), nullptr, pointers.data(), environ);
  if (error != 0) {
    throw Failure(
        fmt::format("cannot start {}: {}", words[0], std::generic_category().message(error)));
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  ChildResult result;
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  const std::string text = read_file(log);
  result.error_tail = text.size() > kTail ? text.substr(text.size() - kTail) : text;
  return result;
}

}  // namespace wavroute
