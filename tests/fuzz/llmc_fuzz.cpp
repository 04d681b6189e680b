// Token files of llm.c: the input is a whole file.
#include "data/llmc_file.h"
#include "data/split.h"
#include "fuzz.h"

using namespace wavroute;

WAVROUTE_FUZZ_TARGET(text) {
  static const auto tokenizer = make_bytes_tokenizer();
  const auto file = fuzz::scratch() / "input.bin";
  fuzz::put(file, text);
  fuzz::accepts([&] {
    const auto header = find_llmc_header(text, "input");
    if (!header) return;
    fuzz::require(text.size() == static_cast<size_t>(kLlmcHeaderBytes) +
                                     static_cast<size_t>(header->tokens * header->width),
                  "a file is its header and its tokens");
    Split split = open_split(file, DataFormat::kAuto);
    open_split_tokens(split, *tokenizer);
    fuzz::require(split.tokens.size() == header->tokens, "every token is read");
  });
}
