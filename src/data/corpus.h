// The corpus that [data] names: its tokenizer and its two splits, as tokens. Torch-free.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "data/token_file.h"
#include "wavroute/config.h"
#include "wavroute/tokenizer.h"

namespace wavroute {

struct Corpus {
  std::shared_ptr<const Tokenizer> tokenizer;
  TokenView train;
  TokenView valid;
  std::string train_sha256;  // of the split's text (of its packed tokens, for a token file)
  std::string valid_sha256;
  int64_t train_bytes = 0;  // of text
  int64_t valid_bytes = 0;
  double valid_bytes_per_token = 0;  // over the tokens that an evaluation scores
  std::string description;           // one line
};

// Opens the corpus for sequences of `context` tokens.
//
// data.train is a file, read as data.format says (split.h), a folder that `data prepare` made
// (prepared.h), or "torch-source"; data.valid likewise, and where it is empty: the corpus' own
// split (folder, torch-source), else the last 5 % of the training file, or one sequence where that
// is more, from the beginning of a line where one is near. data.max_bytes limits what is left for
// training after that.
//
// `known` is the tokenizer of a checkpoint; without it, data.tokenizer makes one. The vocabulary of
// "chars" comes from everything that data.train and data.valid name, before the split and the
// limit. The tokenizer of a file of tokens, unless that is "bytes", is beside it, as
// FILE.tokenizer.json or tokenizer.json; a folder has its own. Other texts have characters that
// "chars" doesn't know: data.unknown says what becomes of them.
//
// UserError: a missing, empty or too short text (model.context + 1 tokens in each split), a
// character that the vocabulary doesn't have (with its offset), a token file of another tokenizer,
// an id beyond its vocabulary, a file that doesn't match data.format.
[[nodiscard]] Corpus open_corpus(const DataConfig& data, int64_t context,
                                 std::shared_ptr<const Tokenizer> known = nullptr);

// The tokens of one text file, token file or the validation split of a prepared folder or of
// "torch-source", for an evaluation with a given tokenizer: two tokens or more. `format` and
// `unknown` as data.format and data.unknown; `count` gets the number of unknown characters. Errors
// as above.
[[nodiscard]] TokenView open_tokens(const std::string& source, const Tokenizer& tokenizer,
                                    DataFormat format = DataFormat::kAuto,
                                    UnknownText unknown = UnknownText::kError,
                                    int64_t* count = nullptr);

}  // namespace wavroute
