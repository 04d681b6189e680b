// What each token stands for in the text that a tokenizer puts together from ids.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace wavroute {

class TokenDecoder {
 public:
  // `json`: the value of "decoder"; UserError, `where` named, for what is not known.
  TokenDecoder(const nlohmann::json& json, const std::string& where);

  [[nodiscard]] bool is_byte_level() const { return is_byte_level_; }
  // The bytes that a token stands for, as its file spells it; `is_first`: as the first of a text.
  [[nodiscard]] std::string bytes_of(std::string_view token, bool is_first) const;
  // Whether the first token of a text may stand for other bytes.
  [[nodiscard]] bool has_first_rule() const;

 private:
  enum class Kind : uint8_t { kReplace, kByteFallback, kMetaspace, kByteLevel, kStripFirst };
  struct Step {
    Kind kind;
    std::string text;  // kReplace, kMetaspace: what is replaced; kStripFirst: what goes
    std::string replacement;
    bool drops_first = false;  // kMetaspace: in the first token the mark is dropped
  };

  void add(const nlohmann::json& json, const std::string& where, int depth);
  void add_metaspace(const nlohmann::json& json, const std::string& where);
  void add_strip(const nlohmann::json& json, const std::string& where);

  std::vector<Step> steps_;
  bool is_byte_level_ = false;
  bool is_fused_ = false;  // further steps see the text as a whole
};

}  // namespace wavroute
