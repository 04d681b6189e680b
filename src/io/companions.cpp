#include "io/companions.h"

#include "io/file.h"

namespace wavroute {

Companions read_companions(const std::filesystem::path& folder) {
  constexpr uint64_t kMostBytes = uint64_t{16} << 20;
  Companions companions;
  for (const char* name : kCompanionFiles) {
    const std::filesystem::path file = folder / name;
    if (is_there(file)) companions.emplace(name, read_file(file, kMostBytes));
  }
  return companions;
}

}  // namespace wavroute
