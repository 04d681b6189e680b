// The command line: parses, runs one subcommand, turns errors into words and exit codes.
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <new>
#include <optional>
#include <vector>

#include "base/nearest.h"
#include "bench/build_info.h"
#include "command.h"
#include "wavroute/error.h"

namespace wavroute::app {
namespace {

constexpr int kFailed = 1, kWrongUse = 2;

int complain(int code, const std::string& what, const std::string& hint) {
  std::fflush(stdout);
  fmt::print(stderr, "wavroute: {}\n", what);
  if (!hint.empty()) fmt::print(stderr, "hint: {}\n", hint);
  return code;
}

// libtorch's messages carry a stack trace behind their first line.
std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

constexpr const char* kFaultHint =
    "this is no mistake of yours; wavroute doctor prints what belongs into an issue";

constexpr const char* kNeedsLess = "a smaller batch, model or context needs less";

// `command`: the words of the subcommand that ran.
int run_action(const Action& action, const std::string& command) {
  const std::string help = command + " --help says what is expected";
  try {
    return action();
  } catch (const UserError& error) {
    return complain(kWrongUse, error.what(), error.hint().empty() ? help : error.hint());
  } catch (const Error& error) {
    return complain(error.exit_code(), error.what(),
                    error.hint().empty() ? kFaultHint : error.hint());
  } catch (const c10::OutOfMemoryError& error) {
    return complain(kFailed, "libtorch: " + first_line(error.what_without_backtrace()), kNeedsLess);
  } catch (const c10::Error& error) {
    return complain(kFailed, "libtorch: " + first_line(error.what_without_backtrace()), kFaultHint);
  } catch (const std::bad_alloc&) {
    return complain(kFailed, "out of memory", kNeedsLess);
  } catch (const std::exception& error) {
    return complain(kFailed, first_line(error.what()), kFaultHint);
  }
}

// "wavroute config show", as far as it was understood.
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
  for (const CLI::App* sub : root.get_subcommands({})) names.push_back(sub->get_name());
  if (std::ranges::count(names, argv[1]) > 0) return std::nullopt;
  return complain(
      kWrongUse, fmt::format("a subcommand was expected, '{}' was given", argv[1]),
      fmt::format("did you mean '{}'? wavroute --help lists them", nearest(argv[1], names)));
}

int run(int argc, char** argv) {
  CLI::App root("Train, compare and run deep transformers under every residual scheme");
  root.name("wavroute");
  root.set_version_flag("--version",
                        fmt::format("wavroute {} ({})", build_info().version, build_info().commit));
  root.require_subcommand(1);
  Action action;
  for (const auto add : {add_train, add_compare, add_report, add_eval, add_generate, add_bench,
                         add_config, add_doctor}) {
    add(root, action);
  }
  if (const auto refused = refuse_unknown_command(root, argc, argv)) return *refused;
  try {
    root.parse(argc, argv);
  } catch (const CLI::CallForHelp& help) {
    return root.exit(help);
  } catch (const CLI::CallForAllHelp& help) {
    return root.exit(help);
  } catch (const CLI::CallForVersion& version) {
    return root.exit(version);
  } catch (const CLI::ParseError& error) {
    return complain(kWrongUse, first_line(error.what()),
                    command_words(root) + " --help says what is expected");
  }
  return run_action(action, command_words(root));
}

}  // namespace
}  // namespace wavroute::app

int main(int argc, char** argv) { return wavroute::app::run(argc, argv); }
