// How a tokenizer cuts a text into the words that its model sees.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "data/split_patterns.h"

namespace wavroute {

class PreTokenizer {
 public:
  PreTokenizer() = default;  // the whole text is one word
  // `json`: the value of "pre_tokenizer"; UserError, `where` named, for what is not known.
  PreTokenizer(const nlohmann::json& json, const std::string& where);

  // Whether the model sees bytes: the last step is ByteLevel.
  [[nodiscard]] bool is_byte_level() const { return is_byte_level_; }
  [[nodiscard]] bool is_empty() const { return steps_.empty() && !is_byte_level_; }
  // Whether it cuts between a letter or number and a space.
  [[nodiscard]] bool cuts_at_spaces() const;
  // Whether it cuts between a line end behind something else than white space and a letter or
  // number, and looks at nothing beyond that place.
  [[nodiscard]] bool cuts_at_lines() const;

  using Visit = std::function<void(std::string_view)>;
  // Calls `visit` with each word in order. `is_start`: whether `text` is the beginning of what is
  // encoded.
  void split(std::string_view text, bool is_start, const Visit& visit) const;

  // What it does, for the tokenizer's hash.
  [[nodiscard]] std::string description() const;

 private:
  enum class Kind : uint8_t { kPattern, kDigits, kPrefixSpace, kMetaspace };
  enum class Prefix : uint8_t { kNever, kFirst, kAlways };
  struct Step {
    Kind kind;
    SplitPattern pattern{};          // kPattern
    bool splits = true;              // kDigits: each digit alone; kMetaspace: cuts at all
    std::string mark;                // kMetaspace: what stands for a space
    Prefix prefix = Prefix::kNever;  // kMetaspace
  };
  struct Call;

  void add(const nlohmann::json& json, const std::string& where, int depth);
  void add_split(const nlohmann::json& json, const std::string& where);
  void add_byte_level(const nlohmann::json& json, const std::string& where);
  void add_metaspace(const nlohmann::json& json, const std::string& where);

  void run(size_t step, std::string_view text, const Call& call) const;
  void split_digits(size_t step, std::string_view text, const Call& call) const;
  void split_at_marks(size_t step, std::string_view text, const Call& call) const;

  std::vector<Step> steps_;
  bool is_byte_level_ = false;
};

}  // namespace wavroute
