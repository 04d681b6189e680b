// A checkpoint's state.json, beside whole files.
#include <nlohmann/json.hpp>

#include "fuzz.h"
#include "io/checkpoint.h"

using namespace wavroute;

WAVROUTE_FUZZ_TARGET(text) {
  const auto folder = fuzz::scratch() / "checkpoints" / "step_3";
  static const bool made = [&] {
    fuzz::put(folder / "config.json", "{}");
    return true;
  }();
  fuzz::require(made, "the folder is there");
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
