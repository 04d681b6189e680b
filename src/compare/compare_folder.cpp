// What lies in the folder of a comparison before it is run.
#include "compare/compare_run.h"
#include "compare/result_files.h"
#include "io/file.h"
#include "io/json_text.h"
#include "io/link.h"
#include "io/run_folder.h"
#include "report/run_data.h"
#include "wavroute/error.h"

namespace wavroute {

namespace fs = std::filesystem;

void refuse_links(const fs::path& out, const std::vector<GridCell>& cells) {
  const auto refuse = [&](const fs::path& path) {
    refuse_link(out / path, "a file or folder of the comparison itself",
                "nothing is written through links: remove it, or give another --out");
  };
  for (const char* name : {".lock", "cells", "configs", "compare.json", "config.toml",
                           "report.html", kRowsCsv, kRowsSqlite}) {
    refuse(name);
  }
  for (const GridCell& cell : cells) {
    refuse(fs::path("cells") / cell.folder);
    for (const char* end : {".toml", ".log"}) refuse(fs::path("configs") / (cell.folder + end));
  }
}

std::vector<bool> finished_cells(const fs::path& out, const std::vector<GridCell>& cells) {
  const fs::path file = out / "compare.json";
  if (is_there(file)) static_cast<void>(parse_comparison(read_json(file), file.string()));
  std::vector<bool> finished;
  for (const GridCell& cell : cells) {
    const fs::path folder = out / "cells" / cell.folder;
    check_run_format(RunPaths{folder});
    bool is_finished = false;
    try {
      if (is_run_folder(folder)) {
        const RunData run = read_run(folder);
        is_finished = run.status == "finished" && run.val_loss;
      }
    } catch (const UserError&) {  // run_comparison says so
    }
    finished.push_back(is_finished);
  }
  return finished;
}

}  // namespace wavroute
