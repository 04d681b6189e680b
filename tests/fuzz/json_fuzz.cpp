// The reader that every JSON file goes through.
#include <nlohmann/json.hpp>

#include "fuzz.h"
#include "io/json_text.h"

using namespace wavroute;

WAVROUTE_FUZZ_TARGET(text) {
  fuzz::accepts([&] {
    const nlohmann::json value = parse_json(text, "input");
    const std::string written = value.dump();
    fuzz::require(parse_json(written, "written") == value, "a value reads back as it was written");
    fuzz::require(json_excerpt(value).size() <= 80, "an excerpt is short");
  });
}
