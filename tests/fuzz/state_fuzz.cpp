// A checkpoint's state.json, beside whole files.
#include <nlohmann/json.hpp>

#include "fuzz.h"
#include "io/checkpoint.h"
#include "io/checkpoint_state.h"
#include "io/json_text.h"

using namespace wavroute;

namespace {

void check(const std::filesystem::path& folder, std::string_view text) {
  fuzz::put(folder / "state.json", text);
  nlohmann::json state;
  const bool readable = fuzz::accepts([&] { state = read_state(folder); });
  fuzz::require(!readable || state.is_object(), "a state is an object");
  fuzz::accepts([&] {
    const bool whole = !verify_checkpoint(folder).has_value();
    fuzz::require(!whole || readable, "a checkpoint whose state can't be read is not whole");
  });
  fuzz::accepts([&] { (void)best_checkpoint(fuzz::scratch()); });
  fuzz::accepts([&] { (void)list_checkpoints(fuzz::scratch()); });
}

}  // namespace

WAVROUTE_FUZZ_TARGET(text) {
  const auto folder = fuzz::scratch() / "checkpoints" / "step_3";
  static const bool made = [&] {
    fuzz::put(folder / "config.json", "{}");
    return true;
  }();
  fuzz::require(made, "the folder is there");
  check(folder, text);
  // The checksum keeps a changed value from being looked at: once more with one that holds.
  fuzz::accepts([&] {
    const nlohmann::json state = parse_json(text, "input");
    if (state.is_object()) check(folder, state_text(state));
  });
}
