// A hint for a path that isn't there.
#pragma once

#include <filesystem>
#include <string>

namespace wavroute {

// A hint: the command that prepares it, for the name of a recipe's folder ("text8",
// "tinystories-chars"); else the file in the same folder with the most similar name.
[[nodiscard]] std::string nearest_beside(const std::filesystem::path& path);

}  // namespace wavroute
