#include "config/names.h"

#include <fmt/format.h>

#include <string>
#include <string_view>

#include "base/printable.h"
#include "base/utf8.h"
#include "config/fields.h"
#include "config/print.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

void check_name(std::string_view what, std::string_view name) {
  if (is_utf8(name)) return;
  throw expected("names in UTF-8", fmt::format("{} = {}", what, terminal_text(name)), {},
                 "a run writes this name into TOML and JSON files: rename it, or make a link to it "
                 "under a name in UTF-8");
}

}  // namespace

void check_names(const Config& config) {
  for (const Setting& setting : settings(config)) {
    check_name(dotted(setting.section, setting.key), setting.value);
  }
}

void check_out(const std::filesystem::path& folder) { check_name("--out", folder.native()); }

}  // namespace wavroute
