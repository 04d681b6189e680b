// Parses the command line, runs one subcommand, turns errors into words and exit codes.
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <new>
#include <optional>
#include <sstream>
#include <string_view>
#include <system_error>
#include <vector>

#include "base/build_info.h"
#include "base/nearest.h"
#include "base/numbers.h"
#include "base/output.h"
#include "command.h"
#include "io/file.h"
#include "train/processes.h"
#include "wavroute/error.h"

namespace wavroute::app {
namespace {

constexpr int kFailed = 1, kWrongUse = 2;

int complain(int code, const std::string& what, const std::string& hint) {
  std::fflush(stdout);
  note("wavroute: " + what);
  if (!hint.empty()) note("hint: " + hint);
  return code;
}

// libtorch's messages have a stack trace after their first line.
std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

constexpr const char* kBugHint =
    "this looks like a bug; please file an issue with the output of wavroute doctor";
constexpr const char* kFailureHint =
    "try again; if it persists, please file an issue with what wavroute doctor prints";
constexpr const char* kNeedsLess = "a smaller batch, context or model needs less";

// Explains an error of libtorch: not enough memory, in our words, or a bug.
int complain_of_libtorch(const std::string& message) {
  constexpr std::string_view kAsked = "tried to allocate ";  // N bytes
  const size_t asked = message.find(kAsked);
  if (asked != std::string::npos) {
    const double bytes = std::strtod(message.c_str() + asked + kAsked.size(), nullptr);
    return complain(kFailed,
                    fmt::format("not enough memory: {} were asked for at once, more than there is",
                                format_bytes(bytes)),
                    kNeedsLess);
  }
  for (const char* sign : {"allocate memory", "out of memory", "calculation overflowed"}) {
    if (message.find(sign) == std::string::npos) continue;
    return complain(kFailed, "not enough memory: " + message, kNeedsLess);
  }
  return complain(kFailed, "libtorch: " + message, kBugHint);
}

// A failed call of the standard library on a file, as the error that our own calls give.
int complain_of_file(const std::filesystem::filesystem_error& error) {
  try {
    throw_system_error("look at", error.path1(), error.code().value());
  } catch (const Error& translated) {
    const std::string& hint = translated.hint();
    return complain(translated.exit_code(), translated.what(), hint.empty() ? kFailureHint : hint);
  }
}

// Standard output did not accept everything. `error`: the system's number, or 0. The action's
// `code` is kept if the reader just stopped reading, as in `wavroute generate ... | head`.
int complain_of_output(int code, int error) {
  if (error == EPIPE || reader_is_gone()) return code;
  return complain(kFailed,
                  fmt::format("cannot write standard output: {}",
                              std::generic_category().message(error == 0 ? EIO : error)),
                  "free some space, or redirect it elsewhere: the result was not written");
}

// Training continues without standard output: its result is the run folder.
bool prints_its_result(const std::string& command) { return command != "wavroute train"; }

// `command`: the words of the subcommand that ran.
int run_action(const Action& action, const std::string& command) {
  const std::string help = command + " --help lists what is expected";
  int code = 0;
  try {
    code = action();
    if (prints_its_result(command)) finish_output();
    return code;
  } catch (const UserError& error) {
    return complain(kWrongUse, error.what(), error.hint().empty() ? help : error.hint());
  } catch (const Error& error) {
    return complain(error.exit_code(), error.what(),
                    error.hint().empty() ? kFailureHint : error.hint());
  } catch (const ProcessEnded& ended) {
    return ended.exit_code();
  } catch (const c10::OutOfMemoryError& error) {
    return complain(kFailed, "not enough memory: " + first_line(error.what_without_backtrace()),
                    kNeedsLess);
  } catch (const c10::Error& error) {
    return complain_of_libtorch(first_line(error.what_without_backtrace()));
  } catch (const std::bad_alloc&) {
    return complain(kFailed, "not enough memory", kNeedsLess);
  } catch (const std::length_error&) {
    return complain(kFailed, "not enough memory: a list longer than any memory was asked for",
                    kNeedsLess);
  } catch (const std::filesystem::filesystem_error& error) {
    return complain_of_file(error);
  } catch (const std::system_error& error) {
    // fmt and print() throw it for a stream that accepts no more.
    if (output_failed()) return complain_of_output(code, error.code().value());
    return complain(kFailed, first_line(error.what()), kFailureHint);
  } catch (const std::exception& error) {
    return complain(kFailed, first_line(error.what()), kBugHint);
  }
}

// "wavroute config show", as far as it was parsed.
std::string command_words(const CLI::App& root) {
  std::string words = "wavroute";
  for (const CLI::App* sub = &root; !sub->get_subcommands().empty();) {
    sub = sub->get_subcommands().front();
    words += " " + sub->get_name();
  }
  return words;
}

// CLI11 would only say that a subcommand is missing.
std::optional<int> refuse_unknown_command(const CLI::App& root, int argc, char** argv) {
  if (argc < 2 || argv[1][0] == '-') return std::nullopt;
  std::vector<std::string> names;
  for (const CLI::App* sub : root.get_subcommands({})) {
    if (sub->get_name() == argv[1]) return std::nullopt;
    if (!sub->get_group().empty()) names.push_back(sub->get_name());  // the others are internal
  }
  return complain(
      kWrongUse, fmt::format("expected a subcommand, given '{}'", argv[1]),
      fmt::format("did you mean '{}'? wavroute --help lists them", nearest(argv[1], names)));
}

}  // namespace

int run_command(int argc, char** argv) {
  CLI::App root("Train, compare and run deep transformers under every residual scheme");
  root.name("wavroute");
  root.set_version_flag("--version",
                        fmt::format("wavroute {} ({})", build_info().version, build_info().commit));
  root.require_subcommand(1);
  Action action;
  for (const auto add : {add_train, add_compare, add_report, add_eval, add_inspect, add_generate,
                         add_chat, add_program, add_import, add_export, add_bench, add_config,
                         add_data, add_doctor, add_completion, add_manual}) {
    add(root, action);
  }
  if (const auto refused = refuse_unknown_command(root, argc, argv)) return *refused;
  try {
    root.parse(argc, argv);
  } catch (const CLI::Success& wish) {  // help, the version
    const auto tell = [&] {
      std::ostringstream text;
      const int code = root.exit(wish, text, text);
      print(text.str());
      return code;
    };
    return run_action(tell, command_words(root) + " --help");
  } catch (const CLI::ParseError& error) {
    return complain(kWrongUse, first_line(error.what()),
                    command_words(root) + " --help lists what is expected");
  }
  return run_action(action, command_words(root));
}

}  // namespace wavroute::app
