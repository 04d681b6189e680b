// A byte-pair encoding: the ids of one word.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/bpe_merges.h"
#include "data/unicode_classes.h"
#include "data/word_cache.h"

namespace wavroute {

struct BpeVocabulary {
  std::vector<std::optional<std::string>> tokens;  // by id, as the file spells them
  std::vector<BpeMerge> merges;                    // by rank
  std::optional<uint32_t> unknown;                 // for characters that have no token
  bool fuse_unknown = false;                       // neighbours of these become one
  bool byte_fallback = false;                      // characters without a token become bytes <0x..>
  bool ignore_merges = false;                      // a word that is a token is that token
  bool is_byte_level = false;                      // tokens are spelled in byte_symbols()
};

class BpeModel {
 public:
  explicit BpeModel(BpeVocabulary vocabulary);

  struct Scratch {
    WordCache cache;
    BpeMerges::Scratch merging;
    std::vector<uint32_t> symbols;
  };

  // Appends the ids of a word that is not empty: UTF-8, or any bytes where the vocabulary is
  // byte-level. Gives the offset of a character that the vocabulary cannot spell, if there is one.
  std::optional<size_t> encode_word(std::string_view word, Scratch& scratch,
                                    std::vector<uint32_t>& ids) const;

  [[nodiscard]] const BpeVocabulary& vocabulary() const { return vocabulary_; }
  // Of a token as the file spells it.
  [[nodiscard]] std::optional<uint32_t> id_of(std::string_view token) const;
  // Whether encode_word never finds a character that it cannot spell.
  [[nodiscard]] bool spells_all() const noexcept;
  // Whether a text may be cut before every U+2581 that does not follow another one: no token holds
  // the place of such a cut, and no character is unknown.
  [[nodiscard]] bool begins_words_at_marks() const { return begins_words_at_marks_; }

 private:
  std::optional<size_t> spell_bytes(std::string_view word, std::vector<uint32_t>& symbols) const;
  std::optional<size_t> spell_characters(std::string_view word,
                                         std::vector<uint32_t>& symbols) const;
  [[nodiscard]] bool find_word_marks() const;

  static constexpr uint32_t kNone = UINT32_MAX;

  BpeVocabulary vocabulary_;
  BpeMerges merges_;
  std::unordered_map<std::string_view, uint32_t> ids_;  // by token, views of the vocabulary
  std::unordered_map<std::string, uint32_t> words_;     // by bytes: byte-level with ignore_merges
  std::array<uint32_t, 256> byte_ids_{};                // of one byte; kNone where there is none
  std::vector<uint32_t> character_ids_;                 // by code point
  CharacterReader characters_;
  bool begins_words_at_marks_ = false;
};

}  // namespace wavroute
