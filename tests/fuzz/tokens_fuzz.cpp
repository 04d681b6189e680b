// Token files: the input is a whole file.
#include <vector>

#include "data/token_file.h"
#include "fuzz.h"

using namespace wavroute;

static size_t bytes_of(const TokenView& tokens) {
  size_t bytes = 0;
  for (const auto& packed : tokens.packed()) bytes += packed.size();
  return bytes;
}

WAVROUTE_FUZZ_TARGET(text) {
  static const auto tokenizer = make_bytes_tokenizer();
  const auto file = fuzz::scratch() / "input.tokens";
  fuzz::put(file, text);
  fuzz::accepts([&] { (void)read_token_file_info(file); });
  fuzz::accepts([&] {
    const TokenView tokens = open_token_file(file, *tokenizer);
    const size_t around = text[8] == 1 ? 64 : 128;  // version 2 has a trailer besides the header
    fuzz::require(bytes_of(tokens) + around == text.size(),
                  "a file is its tokens and what its version puts around them");
    std::vector<int64_t> ids(static_cast<size_t>(tokens.size()));
    tokens.copy(0, ids);
    for (const int64_t id : ids) fuzz::require(0 <= id && id < 256, "an id is in the vocabulary");
  });
  for (const int width : {2, 4}) {
    fuzz::accepts([&] {
      const TokenView tokens = open_raw_tokens(file, width, *tokenizer);
      fuzz::require(bytes_of(tokens) == text.size(), "a file of ids is nothing else");
    });
  }
}
