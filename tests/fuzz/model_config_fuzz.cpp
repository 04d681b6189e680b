// config.json of a model folder, ours or another program's.
#include <nlohmann/json.hpp>

#include "config/llama_config.h"
#include "fuzz.h"
#include "io/json_text.h"

using namespace wavroute;

WAVROUTE_FUZZ_TARGET(text) {
  fuzz::accepts([&] {
    const LlamaConfig config = read_llama_config(parse_json(text, "config.json"), "config.json");
    fuzz::require(config.vocab_size > 0 && config.model.layers > 0 && config.model.heads > 0,
                  "a model that is read has sizes");
    fuzz::require(config.model.heads % config.model.kv_heads == 0,
                  "every key head serves as many query heads");
  });
}
