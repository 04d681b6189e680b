// Tokens that are found in the text itself, before a tokenizer cuts it: <|endoftext|> and the like.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "data/normalizer.h"
#include "data/unicode_classes.h"

namespace wavroute {

struct AddedToken {
  uint32_t id = 0;
  std::string content;
  bool single_word = false;  // not beside a letter, digit or the like
  bool lstrip = false;       // takes the spaces before it along
  bool rstrip = false;       // takes the spaces after it along
  bool normalized = true;    // found, in its normal form, in the normal form of the text
  bool special = false;      // not part of anybody's text: not found in data
};

class AddedTokens {
 public:
  static constexpr size_t kLongest = 1000;  // bytes of one of them

  AddedTokens() = default;
  AddedTokens(std::vector<AddedToken> tokens, const Normalizer& normalizer);

  [[nodiscard]] const std::vector<AddedToken>& tokens() const { return tokens_; }
  [[nodiscard]] bool is_special(uint32_t id) const { return special_.contains(id); }

  // A part of a text: a token, or what stands between two.
  struct Part {
    std::string_view text;  // between tokens
    std::optional<uint32_t> id;
  };
  using Visit = std::function<void(const Part&)>;
  // Calls `visit` with each part in order. `is_normal`: whether `text` is in its normal form, where
  // the tokens that are normalized are looked for, else the others. Special ones count as text
  // unless `with_special`.
  void split(std::string_view text, bool is_normal, bool with_special, const Visit& visit) const;

  // Whether a text may be cut between a letter or number and a space, or a line end and a letter or
  // number, special tokens being text.
  [[nodiscard]] bool can_be_cut() const;
  // For the tokenizer's hash.
  [[nodiscard]] std::string description() const;

 private:
  // A trie over the contents, one node a byte; node 0 is the root.
  class Trie {
   public:
    void add(std::string_view content, uint32_t token);
    // The token with the longest content that `text` has at `at`, and its length.
    struct Match {
      uint32_t token;
      size_t length;
    };
    [[nodiscard]] std::optional<Match> find(std::string_view text, size_t at) const;
    [[nodiscard]] bool is_empty() const { return is_end_.empty(); }

   private:
    static constexpr uint32_t kNone = UINT32_MAX;

    std::unordered_map<uint64_t, uint32_t> next_;  // by (node << 8 | byte)
    std::vector<uint32_t> is_end_;                 // by node: the token that ends there
    bool begins_[256] = {};
  };

  [[nodiscard]] bool is_alone(std::string_view text, size_t begin, size_t end) const;

  std::vector<AddedToken> tokens_;  // the special ones first: of equal contents the first counts
  Trie plain_, normal_;
  std::unordered_set<uint32_t> special_;  // ids
  bool has_plain_text_[2] = {};           // tokens that are not special: not normalized, normalized
  CharacterReader characters_;
};

}  // namespace wavroute
