#include "config/names.h"

#include <fmt/format.h>

#include <string>
#include <string_view>

#include "base/utf8.h"
#include "config/fields.h"
#include "config/print.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

// Bytes that are no UTF-8 as \xE9.
std::string spelled(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = utf8_step(text, at);
    if (step.state == Utf8State::kComplete) {
      out += text.substr(at, step.length);
      at += step.length;
    } else {
      out += fmt::format("\\x{:02X}", static_cast<unsigned char>(text[at]));
      at += 1;
    }
  }
  return out;
}

void check_name(std::string_view what, std::string_view name) {
  if (is_utf8(name)) return;
  throw UserError(
      fmt::format("names in UTF-8 were expected, {} = {} was given", what, spelled(name)),
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
