// Recipes: the files of well-known corpora, as their users have them, and how they are cut.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/sources.h"

namespace wavroute {

struct Recipe {
  std::string_view name;
  std::string_view files;      // for people: what a source has to be
  std::string_view tokenizer;  // where the user names none
  uint64_t bytes = 0;          // of the one file, where it has so many
};
[[nodiscard]] const std::vector<Recipe>& recipes();

// UserError for a name that no recipe has.
[[nodiscard]] const Recipe& find_recipe(std::string_view name);

// The files that `given` name (files, or folders that hold them), with the splits and the form of
// the recipe. UserError where they don't look like its files.
[[nodiscard]] std::vector<SourceFile> recipe_sources(const Recipe& recipe,
                                                     const std::vector<std::string>& given,
                                                     const SourceOptions& options);

}  // namespace wavroute
