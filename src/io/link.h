// Links where none is followed: inside the folder of a run or comparison.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace wavroute {

// UserError that `expected` was, where a link is instead; `hint` says what to do about it.
void refuse_link(const std::filesystem::path& path, std::string_view expected,
                 const std::string& hint);

}  // namespace wavroute
