#include "io/python.h"

#include <cstdlib>
#include <system_error>

namespace wavroute {

std::string find_python(const std::filesystem::path& executable) {
  const char* given = std::getenv("WAVROUTE_PYTHON");
  if (given != nullptr && *given != '\0') return given;
  const auto own = executable.parent_path().parent_path().parent_path() / ".venv/bin/python";
  std::error_code ignored;
  return std::filesystem::exists(own, ignored) ? own.string() : "python3";
}

}  // namespace wavroute
