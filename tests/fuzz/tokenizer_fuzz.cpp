// tokenizer.json.
#include "fuzz.h"
#include "wavroute/tokenizer.h"

using namespace wavroute;

WAVROUTE_FUZZ_TARGET(text) {
  fuzz::accepts([&] {
    const auto tokenizer = tokenizer_from_json(text);
    const auto again = tokenizer_from_json(tokenizer->to_json());
    fuzz::require(again->hash() == tokenizer->hash(), "a tokenizer reads back as it was written");
    if (tokenizer->name() != "chars") return;
    const auto last = static_cast<uint32_t>(tokenizer->vocab_size() - 1);
    for (const uint32_t id : {uint32_t{0}, last}) {
      const std::string character(tokenizer->token_bytes(id));
      fuzz::require(tokenizer->encode(character) == std::vector<uint32_t>{id},
                    "a character of the vocabulary has its id");
    }
  });
}
