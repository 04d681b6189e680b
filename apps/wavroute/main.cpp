// The command line: parses, runs one subcommand, turns errors into words and exit codes.
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <cstdio>
#include <new>

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

int run_action(const Action& action) {
  try {
    return action();
  } catch (const Error& error) {
    return complain(error.exit_code(), error.what(), error.hint());
  } catch (const c10::Error& error) {
    return complain(kFailed, "libtorch: " + first_line(error.what_without_backtrace()), "");
  } catch (const std::bad_alloc&) {
    return complain(kFailed, "out of memory", "a smaller batch, model or context needs less");
  } catch (const std::exception& error) {
    return complain(kFailed, first_line(error.what()), "");
  }
}

int run(int argc, char** argv) {
  CLI::App root("Train, compare, inspect and run deep transformers under every residual scheme");
  root.name("wavroute");
  root.set_version_flag("--version",
                        fmt::format("wavroute {} ({})", build_info().version, build_info().commit));
  root.require_subcommand(1);
  Action action;
  for (const auto add : {add_train, add_compare, add_report, add_eval, add_generate, add_bench,
                         add_config, add_doctor}) {
    add(root, action);
  }
  try {
    root.parse(argc, argv);
  } catch (const CLI::CallForHelp& help) {
    return root.exit(help);
  } catch (const CLI::CallForAllHelp& help) {
    return root.exit(help);
  } catch (const CLI::CallForVersion& version) {
    return root.exit(version);
  } catch (const CLI::ParseError& error) {
    std::string path = "wavroute";
    for (const CLI::App* sub = &root; !sub->get_subcommands().empty();) {
      sub = sub->get_subcommands().front();
      path += " " + sub->get_name();
    }
    return complain(kWrongUse, first_line(error.what()), path + " --help says what is expected");
  }
  return run_action(action);
}

}  // namespace
}  // namespace wavroute::app

int main(int argc, char** argv) { return wavroute::app::run(argc, argv); }
