#include "data/nearest_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>
#include <vector>

#include "base/nearest.h"
#include "data/recipes.h"

namespace wavroute {

namespace fs = std::filesystem;

namespace {

// The command that makes a folder like "corpora/tinystories-chars": a recipe's name, and a
// tokenizer's where it isn't the recipe's own. Empty for any other name.
std::string prepare_hint(const fs::path& path) {
  const std::string name = path.filename().string();
  for (const Recipe& recipe : recipes()) {
    const bool is_tokenized = name.starts_with(std::string(recipe.name) + "-");
    if (name != recipe.name && !is_tokenized) continue;
    std::string tokenizer;
    if (is_tokenized) tokenizer = name.substr(recipe.name.size() + 1);
    if (tokenizer == "gpt2") tokenizer = "tokenizer.json";  // that the user has
    return fmt::format("wavroute data prepare SOURCE --recipe {}{} --out {}   where SOURCE has {}",
                       recipe.name, tokenizer.empty() ? "" : " --tokenizer " + tokenizer,
                       path.string(), recipe.files);
  }
  return {};
}

}  // namespace

std::string nearest_beside(const fs::path& path) {
  if (std::string prepare = prepare_hint(path); !prepare.empty()) return prepare;
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
