// manifest.json of a folder of prepared text.
#include <nlohmann/json.hpp>

#include "data/manifest.h"
#include "fuzz.h"
#include "io/json_text.h"

using namespace wavroute;

WAVROUTE_FUZZ_TARGET(text) {
  fuzz::accepts([&] {
    const Manifest manifest =
        manifest_from_json(parse_json(text, "manifest.json"), "manifest.json");
    for (const ManifestFile& file : manifest.files) {
      fuzz::require(file.name.find('/') == std::string::npos, "a file lies in the folder");
    }
    const std::string written = to_json(manifest).dump();
    const Manifest again = manifest_from_json(parse_json(written, "again"), "again");
    fuzz::require(to_json(again).dump() == written, "what is written is read back");
  });
}
