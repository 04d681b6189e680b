#include "data/nearest_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>
#include <vector>

#include "base/nearest.h"

namespace wavroute {

namespace fs = std::filesystem;

std::string nearest_beside(const fs::path& path) {
  std::vector<std::string> names;
  std::error_code failed;
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  for (fs::directory_iterator entry(folder, failed), end; !failed && entry != end;
       entry.increment(failed)) {
    std::error_code ignored;
    if (entry->is_regular_file(ignored)) names.push_back(entry->path().filename().string());
  }
  if (failed) return fmt::format("there is no folder {} that can be read", folder.string());
  if (names.empty()) return fmt::format("there is no file in {}", folder.string());
  std::sort(names.begin(), names.end());
  return fmt::format("the nearest name there is {}", nearest(path.filename().string(), names));
}

}  // namespace wavroute
