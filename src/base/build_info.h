// What this program was built from. Torch-free.
#pragma once

#include <string_view>

namespace wavroute {

struct BuildInfo {
  std::string_view version;     // of wavroute: "0.1.0"
  std::string_view commit;      // "1a2b3c4d5e6f", with "-dirty" after local changes; or "unknown"
  std::string_view compiler;    // "GNU 12.2.0"
  std::string_view build_type;  // "Release"
  std::string_view torch_version;
  std::string_view torch_folder;  // of the wheel
};

[[nodiscard]] BuildInfo build_info();

}  // namespace wavroute
