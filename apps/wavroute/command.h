// How a subcommand plugs in: one file per subcommand, one line in command.cpp.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace wavroute::app {

// What run_command() runs once the command line is parsed; the result is the process exit code.
// Errors leave as wavroute::Error (see wavroute/error.h); run_command() prints them.
using Action = std::function<int()>;

// Each adds its subcommand to `root` and, when it is chosen, sets `action`.
void add_train(CLI::App& root, Action& action);
void add_eval(CLI::App& root, Action& action);
void add_inspect(CLI::App& root, Action& action);
void add_generate(CLI::App& root, Action& action);
void add_chat(CLI::App& root, Action& action);
void add_export(CLI::App& root, Action& action);
void add_import(CLI::App& root, Action& action);
void add_compare(CLI::App& root, Action& action);
void add_program(CLI::App& root, Action& action);
void add_report(CLI::App& root, Action& action);
void add_bench(CLI::App& root, Action& action);
void add_config(CLI::App& root, Action& action);
void add_data(CLI::App& root, Action& action);
void add_doctor(CLI::App& root, Action& action);
void add_completion(CLI::App& root, Action& action);
void add_manual(CLI::App& root, Action& action);

// The whole command: parses the words of `argv` (the first is the program's name), runs the
// subcommand, prints errors. The result is the process exit code.
int run_command(int argc, char** argv);

}  // namespace wavroute::app
