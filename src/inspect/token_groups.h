// Which tokens are averaged over together: by what they stand for, how often they come, and where
// in the window they are.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "wavroute/tokenizer.h"

namespace wavroute {

struct TokenGroup {
  std::string kind;  // "all", "class", "frequency", "position"
  std::string name;
};

// "letters" for a token with a letter in it, else "digits", "spaces" where it is white space alone,
// "punctuation" for other characters, and "other" where it is no whole character or nothing.
[[nodiscard]] std::string_view class_of_token(std::string_view bytes);

// The groups of one or several texts in windows of `context` tokens. Group 0 is all of them.
class TokenGroups {
 public:
  // `counts`: how often each id comes. "frequent" are the commonest ids that together make up half
  // of the tokens, "rare" the least common that together make up at most a tenth.
  TokenGroups(const Tokenizer& tokenizer, const std::vector<int64_t>& counts, int64_t context);

  [[nodiscard]] const std::vector<TokenGroup>& groups() const { return groups_; }
  // [B T, groups] double, on the CPU: 1 where the token of `ids` [B,T] belongs to the group and
  // `counted` [B,T] bool says that it is to be averaged over.
  [[nodiscard]] at::Tensor membership(const at::Tensor& ids, const at::Tensor& counted) const;

 private:
  std::vector<TokenGroup> groups_;
  std::vector<uint8_t> class_of_;      // by id: the group of its class
  std::vector<uint8_t> frequency_of_;  // by id: that of its frequency; 0: neither
  int64_t context_, first_position_ = 0, position_groups_ = 0;
};

}  // namespace wavroute
