// Vocabularies of other programs, as the text of a tokenizer.json in the format of the library
// `tokenizers`.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

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

  // Of a token; empty where there is none.
  [[nodiscard]] std::string text_of(const std::optional<int64_t>& id) const {
    return id ? pieces[static_cast<size_t>(*id)].text : std::string();
  }
};

// UserError where an entry is no UTF-8 or comes twice, a merge is of no two entries, the
// pre-tokenizer is another; `where` names the file.
[[nodiscard]] std::string byte_level_json(const Vocabulary& vocabulary, const std::string& where);
// Metaspace and byte fallback; the merges follow from the scores, as `transformers` converts them.
[[nodiscard]] std::string sentencepiece_json(const Vocabulary& vocabulary,
                                             const std::string& where);

}  // namespace wavroute
