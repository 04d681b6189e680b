// The Python that child processes are run with.
#pragma once

#include <filesystem>
#include <string>

namespace wavroute {

// $WAVROUTE_PYTHON, else .venv/bin/python beside the build folder, else python3. `executable` is
// the running program, BUILD/bin/NAME.
[[nodiscard]] std::string find_python(const std::filesystem::path& executable);

}  // namespace wavroute
