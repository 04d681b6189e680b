// tokenizer.json; a text stands behind a zero byte, which JSON can't hold.
#include <algorithm>
#include <vector>

#include "fuzz.h"
#include "wavroute/tokenizer.h"

using namespace wavroute;

namespace {

constexpr std::string_view kText =
    " The the's 12'LL \xC3\xA9\xE2\x96\x81\xE4\xB8\xAD\xF0\x9F\x98\x80 e\xCC\x81\r\n\n "
    "\xFF\xC3<s></s> a";

void check_ids(const Tokenizer& tokenizer, const std::vector<uint32_t>& ids) {
  fuzz::require(std::ranges::all_of(ids, [&](uint32_t id) { return id < tokenizer.vocab_size(); }),
                "ids are below the size of the vocabulary");
}

// In one piece and in several; what a vocabulary can't spell is refused.
void encode(const Tokenizer& tokenizer, std::string_view text) {
  fuzz::accepts([&] {
    const auto ids = tokenizer.encode(text);
    check_ids(tokenizer, ids);
    static_cast<void>(tokenizer.decode(ids));
    const size_t cut = tokenizer.cut(text, text.size() / 2);
    fuzz::require(cut <= text.size(), "a text is cut inside it");
    if (cut == 0) return;
    auto parts = tokenizer.encode(text.substr(0, cut));
    const auto rest = tokenizer.encode_rest(text.substr(cut));
    parts.insert(parts.end(), rest.begin(), rest.end());
    fuzz::require(parts == ids, "a text that is cut has the ids of the whole");
  });
  fuzz::accepts([&] { check_ids(tokenizer, tokenizer.encode_prompt(text)); });
  static_cast<void>(tokenizer.replaced_bytes(text));
}

}  // namespace

WAVROUTE_FUZZ_TARGET(input) {
  const std::string_view json = input.substr(0, input.find('\0'));
  const std::string_view own = input.substr(std::min(input.size(), json.size() + 1));
  fuzz::accepts([&] {
    const auto tokenizer = tokenizer_from_json(json);
    const auto again = tokenizer_from_json(tokenizer->to_json());
    fuzz::require(again->hash() == tokenizer->hash(), "a tokenizer reads back as it was written");
    fuzz::require(again->end_token() == tokenizer->end_token(), "and ends documents as it did");
    for (const std::string_view text : {kText, own}) encode(*tokenizer, text);
    if (tokenizer->name() != "chars") return;
    const auto last = static_cast<uint32_t>(tokenizer->vocab_size() - 1);
    for (const uint32_t id : {uint32_t{0}, last}) {
      const std::string character(tokenizer->token_bytes(id));
      fuzz::require(tokenizer->encode(character) == std::vector<uint32_t>{id},
                    "a character of the vocabulary has its id");
    }
  });
}
