#include "data/bpe_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "data/byte_level.h"

namespace wavroute {
namespace {

constexpr std::string_view kMark = "\xE2\x96\x81";  // U+2581, which stands for a space

}  // namespace

BpeModel::BpeModel(BpeVocabulary vocabulary)
    : vocabulary_(std::move(vocabulary)), merges_(vocabulary_.merges) {
  const auto& tokens = vocabulary_.tokens;
  ids_.reserve(tokens.size());
  for (uint32_t id = 0; id < tokens.size(); ++id) {
    if (!tokens[id]) continue;
    const std::string& token = *tokens[id];
    ids_.emplace(token, id);
    if (vocabulary_.is_byte_level) {
      if (!vocabulary_.ignore_merges) continue;
      if (auto bytes = bytes_of_symbols(token)) words_.emplace(*std::move(bytes), id);
    } else if (!token.empty()) {
      const Character character = characters_.read(token.data(), token.data() + token.size());
      if (character.length != token.size()) continue;
      if (character.code_point >= character_ids_.size()) {
        character_ids_.resize(character.code_point + 1, kNone);
      }
      character_ids_[character.code_point] = id;
    }
  }
  for (size_t byte = 0; byte < byte_ids_.size(); ++byte) {
    const std::string token =
        vocabulary_.is_byte_level ? byte_symbols()[byte] : fmt::format("<0x{:02X}>", byte);
    byte_ids_[byte] = id_of(token).value_or(kNone);
  }
  begins_words_at_marks_ = find_word_marks();
}

std::optional<uint32_t> BpeModel::id_of(std::string_view token) const {
  const auto found = ids_.find(token);
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

bool BpeModel::spells_all() const noexcept {
  const bool takes_bytes = vocabulary_.is_byte_level || vocabulary_.byte_fallback;
  return vocabulary_.unknown || (takes_bytes && std::ranges::count(byte_ids_, kNone) == 0);
}

bool BpeModel::find_word_marks() const {
  const bool knows_all = vocabulary_.byte_fallback && std::ranges::count(byte_ids_, kNone) == 0;
  if (vocabulary_.is_byte_level || vocabulary_.ignore_merges || !knows_all) return false;
  return std::ranges::none_of(vocabulary_.merges, [&](const BpeMerge& merge) {
    const std::string_view token = *vocabulary_.tokens[merge.merged];
    size_t words = 0;
    while (token.substr(words).starts_with(kMark)) words += kMark.size();
    return token.find(kMark, words) != std::string_view::npos;
  });
}

std::optional<size_t> BpeModel::spell_bytes(std::string_view word,
                                            std::vector<uint32_t>& symbols) const {
  std::optional<size_t> missing;
  bool after_unknown = false;
  for (size_t at = 0; at < word.size(); ++at) {
    const uint32_t id = byte_ids_[static_cast<unsigned char>(word[at])];
    if (id != kNone) {
      symbols.push_back(id);
    } else if (!vocabulary_.unknown) {
      if (!missing) missing = at;
    } else if (!after_unknown || !vocabulary_.fuse_unknown) {
      symbols.push_back(*vocabulary_.unknown);
    }
    after_unknown = id == kNone;
  }
  return missing;
}

// As `tokenizers` does it: an unknown token is written when the next character that has a token, or
// the next unknown one that is not fused with it, is met; bytes are written before it.
std::optional<size_t> BpeModel::spell_characters(std::string_view word,
                                                 std::vector<uint32_t>& symbols) const {
  std::optional<size_t> missing;
  bool is_waiting = false;  // an unknown token
  const auto write_waiting = [&] {
    if (std::exchange(is_waiting, false)) symbols.push_back(*vocabulary_.unknown);
  };
  const char* const end = word.data() + word.size();
  for (const char* at = word.data(); at != end;) {
    const Character character = characters_.read(at, end);
    const std::string_view bytes(at, character.length);
    at += character.length;
    const uint32_t id =
        character.code_point < character_ids_.size() ? character_ids_[character.code_point] : kNone;
    const auto byte_id = [&](char byte) { return byte_ids_[static_cast<unsigned char>(byte)]; };
    if (id != kNone) {
      write_waiting();
      symbols.push_back(id);
    } else if (vocabulary_.byte_fallback &&
               std::ranges::none_of(bytes, [&](char byte) { return byte_id(byte) == kNone; })) {
      for (const char byte : bytes) symbols.push_back(byte_id(byte));
    } else if (!vocabulary_.unknown) {
      if (!missing) missing = static_cast<size_t>(bytes.data() - word.data());
    } else {
      if (!vocabulary_.fuse_unknown) write_waiting();
      is_waiting = true;
    }
  }
  write_waiting();
  return missing;
}

std::optional<size_t> BpeModel::encode_word(std::string_view word, Scratch& scratch,
                                            std::vector<uint32_t>& ids) const {
  const bool is_kept = word.size() <= WordCache::kLongest;
  if (is_kept) {
    if (const auto known = scratch.cache.find(word)) {
      ids.insert(ids.end(), known->begin(), known->end());
      return std::nullopt;
    }
  }
  auto& symbols = scratch.symbols;
  symbols.clear();
  std::optional<uint32_t> whole;
  if (vocabulary_.ignore_merges) {
    if (!vocabulary_.is_byte_level) {
      whole = id_of(word);
    } else if (const auto found = words_.find(std::string(word)); found != words_.end()) {
      whole = found->second;
    }
  }
  if (whole) {
    symbols.push_back(*whole);
  } else {
    const auto missing =
        vocabulary_.is_byte_level ? spell_bytes(word, symbols) : spell_characters(word, symbols);
    if (missing) return missing;
    merges_.apply(symbols, scratch.merging);
  }
  if (is_kept) scratch.cache.insert(word, symbols);
  ids.insert(ids.end(), symbols.begin(), symbols.end());
  return std::nullopt;
}

}  // namespace wavroute
