// What a tokenizer changes in a text before it cuts it.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace wavroute {

class Normalizer {
 public:
  Normalizer() = default;  // changes nothing
  // `json`: the value of "normalizer"; UserError, `where` named, for a kind that is not known.
  Normalizer(const nlohmann::json& json, const std::string& where);

  [[nodiscard]] bool is_empty() const { return steps_.empty(); }
  // `is_start`: false where the text continues one whose beginning was normalised: nothing is
  // prepended. Bytes that are not UTF-8 stay as they are.
  [[nodiscard]] std::string apply(std::string_view text, bool is_start) const;
  // Whether a text may be cut between a letter or number and a space, or a line end and a letter or
  // number: the normal form of the whole is that of its parts, and a space stays one or becomes
  // U+2581.
  [[nodiscard]] bool can_be_cut() const;
  // What it does, for the tokenizer's hash.
  [[nodiscard]] std::string description() const;

 private:
  enum class Kind : uint8_t { kNfc, kNfd, kNfkc, kNfkd, kLowercase, kPrepend, kReplace };
  struct Step {
    Kind kind;
    std::string text;  // to prepend, or to replace
    std::string replacement;
  };

  void add(const nlohmann::json& json, const std::string& where, int depth);

  std::vector<Step> steps_;
};

}  // namespace wavroute
