// Tokenizers of other programs, as the text of a tokenizer.json in the format of the library
// `tokenizers`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "formats/foreign_model.h"
#include "formats/gguf.h"

namespace wavroute {

// What a vocabulary's entries are, with the numbers of SentencePiece (and so of GGUF).
enum class PieceType : int64_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

struct Piece {
  std::string text;
  double score = 0;  // of SentencePiece; else 0
  PieceType type = PieceType::kNormal;
};

struct Vocabulary {
  std::vector<Piece> pieces;        // by id
  std::vector<std::string> merges;  // "a b", in the order of their rank
  std::string pre_tokenizer;        // GGUF's word: "gpt-2", "smollm", "llama-bpe", "qwen2"
  bool adds_space = true;           // SentencePiece: before a text
  std::optional<int64_t> bos, eos;  // ids that are put around a text
};

// UserError where an entry is no UTF-8 or comes twice, a merge is of no two entries, the
// pre-tokenizer is another; `where` names the file.
[[nodiscard]] std::string byte_level_json(const Vocabulary& vocabulary, const std::string& where);
// Metaspace and byte fallback; the merges follow from the scores, as `transformers` converts them.
[[nodiscard]] std::string sentencepiece_json(const Vocabulary& vocabulary,
                                             const std::string& where);

// Fills bos_id, eos_ids and the chat template from the keys tokenizer.*; the second one fills all
// of tokenizer.
void read_gguf_end_tokens(const GgufFile& file, ForeignModel& model);
void read_gguf_tokenizer(const GgufFile& file, ForeignModel& model);

// A tokenizer.json, a GGUF file, or llama2.c's tokenizer.bin for `vocab_size` tokens.
[[nodiscard]] ForeignTokenizer read_tokenizer_file(const std::filesystem::path& path,
                                                   int64_t vocab_size);

// llama2.c's: the length of the longest token, then a score and a text for each of `vocab_size`.
[[nodiscard]] ForeignTokenizer read_llama2c_tokenizer(const std::filesystem::path& path,
                                                      int64_t vocab_size);

}  // namespace wavroute
