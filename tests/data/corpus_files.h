// A corpus of files in a folder of their own.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "data/corpus.h"
#include "tests/data/scratch.h"

namespace wavroute {

inline constexpr int64_t kContext = 8;

class CorpusFiles : public ScratchTest {
 protected:
  // Opens a corpus whose training text is `text`.
  [[nodiscard]] Corpus open(const std::string& text,
                            TokenizerKind tokenizer = TokenizerKind::kBytes,
                            int64_t max_bytes = 0) {
    data_.train = write("train.txt", text);
    data_.tokenizer = tokenizer;
    data_.max_bytes = max_bytes;
    return open_corpus(data_, kContext);
  }

  [[nodiscard]] std::string error_of(const std::string& text,
                                     TokenizerKind tokenizer = TokenizerKind::kBytes) {
    return user_error([&] { (void)open(text, tokenizer); });
  }

  DataConfig data_;
};

inline std::string lines(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += "line " + std::to_string(i) + "\n";
  return text;
}

inline std::string text_of(const TokenView& tokens, const Tokenizer& tokenizer) {
  std::string text;
  for (const int64_t id : all_tokens(tokens)) {
    text += tokenizer.token_bytes(static_cast<uint32_t>(id));
  }
  return text;
}

}  // namespace wavroute
