#include "compare/cell_checks.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <thread>

#include "config/print.h"
#include "io/file.h"
#include "report/run_settings.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

constexpr std::chrono::milliseconds kLockPause(100);
constexpr int kLockTries = 200;

// What a cell's result follows from, but for its texts: those are known by their sha256, wherever
// they lie.
RunSettings settings_of(const std::string& toml, const std::string& file) {
  RunSettings settings = read_run_config(toml, file).settings;
  settings.erase("data.train");
  settings.erase("data.valid");
  return settings;
}

}  // namespace

CellPaths::CellPaths(const std::filesystem::path& out, const GridCell& cell)
    : config(out / "configs" / (cell.folder + ".toml")),
      log(out / "configs" / (cell.folder + ".log")),
      folder(out / "cells" / cell.folder) {}

void refuse_other_configuration(const CellPaths& paths, const GridCell& cell) {
  if (!is_there(paths.config)) return;
  const std::string file = paths.config.string();
  if (settings_of(read_file(paths.config), file) == settings_of(to_toml(cell.config), file)) return;
  throw expected(fmt::format("the configuration that cell {} was trained with", cell.folder),
                 "another", "in " + file, "give the variant a new label, or another --out");
}

void refuse_other_run(const CellPaths& paths, const GridCell& cell, const RunSettings& settings) {
  const RunSettings planned = read_run_config(to_toml(cell.config), "").settings;
  const auto keys = unplanned_keys(planned, settings);
  if (keys.empty()) return;
  throw expected(fmt::format("a run of the comparison's configuration for cell {}", cell.folder),
                 fmt::format("one that differs in {}", fmt::join(keys, ", ")),
                 "in " + paths.folder.string(),
                 "remove or rename that folder to have the cell trained again, or give another "
                 "--out");
}

void refuse_other_text(const GridCell& cell, const Measure& measure) {
  const std::string text = measure.train_text + " " + measure.valid_text;
  if (cell.text.empty() || measure.train_text.empty() || text == cell.text) return;
  throw expected("one text for all cells, sha256 " + cell.text, text, "in cell " + cell.folder,
                 "the text has changed since the first cells were trained: give another --out");
}

bool wait_until_free(const std::filesystem::path& folder, const std::function<bool()>& stop) {
  for (int i = 0; i < kLockTries && !stop(); ++i) {
    try {
      const FileLock lock(folder);
      return true;
    } catch (const UserError&) {
      std::this_thread::sleep_for(kLockPause);
    }
  }
  return false;
}

}  // namespace wavroute
