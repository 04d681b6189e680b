// wavroute report: one HTML page about any runs.
#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <vector>

#include "base/output.h"
#include "base/printable.h"
#include "command.h"
#include "io/file.h"
#include "io/link.h"
#include "report/html.h"
#include "wavroute/error.h"

namespace wavroute::app {
namespace {

namespace fs = std::filesystem;

struct ReportArguments {
  std::vector<fs::path> runs;
  fs::path out;
};

int report(const ReportArguments& arguments) {
  fs::path out = followed_link(arguments.out);
  if (out.empty()) {
    out = arguments.runs.size() == 1 ? arguments.runs.front() / "report.html" : "report.html";
    // Only a path that the user names may lead elsewhere.
    refuse_link(out, "a page of the folder itself", "remove it, or name the page with -o");
  }
  write_report(arguments.runs, out);
  print(out.string() + "\n");
  return 0;
}

}  // namespace

void add_report(CLI::App& root, Action& action) {
  auto* command =
      root.add_subcommand("report", "Write one self-contained HTML page about any runs");
  auto arguments = std::make_shared<ReportArguments>();
  command->add_option("RUN", arguments->runs, "Run folders, or folders of wavroute compare")
      ->required();
  command->add_option("-o,--out", arguments->out,
                      "The page to write (default: report.html in the run's folder, or here for "
                      "several runs)");
  command->footer(
      "Examples:\n"
      "    wavroute report runs/tiny                              writes runs/tiny/report.html\n"
      "    wavroute report runs/a runs/b --out ab.html");
  command->callback([&action, arguments] { action = [arguments] { return report(*arguments); }; });
}

}  // namespace wavroute::app
