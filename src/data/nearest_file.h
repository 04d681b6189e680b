// A hint for a path that isn't there.
#pragma once

#include <filesystem>
#include <string>

namespace wavroute {

// The file in the same folder with the most similar name, as a hint.
[[nodiscard]] std::string nearest_beside(const std::filesystem::path& path);

}  // namespace wavroute
