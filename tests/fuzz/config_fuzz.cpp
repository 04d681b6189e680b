// Configurations: TOML to a Config, and back.
#include "catalog.h"
#include "config/load.h"
#include "config/print.h"
#include "fuzz.h"

using namespace wavroute;

namespace {

void check(const std::string& file, ConfigUse use) {
  static const SchemeCatalog schemes = fuzz::catalog();
  fuzz::accepts([&] {
    const std::string written = to_toml(load_config(file, {}, schemes, use).config);
    const std::string again = (fuzz::scratch() / "written.toml").string();
    fuzz::put(again, written);
    std::string reread;
    fuzz::require(
        fuzz::accepts([&] { reread = to_toml(load_config(again, {}, schemes, use).config); }),
        "a configuration that was written can be read");
    fuzz::require(reread == written, "a configuration reads back as it was written");
  });
}

}  // namespace

WAVROUTE_FUZZ_TARGET(text) {
  const std::string file = (fuzz::scratch() / "input.toml").string();
  fuzz::put(file, text);
  check(file, ConfigUse::kTrain);
  check(file, ConfigUse::kCompare);
}
