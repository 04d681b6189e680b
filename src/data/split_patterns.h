// The regular expressions by which known tokenizers cut text into words, each as a function
// written for it. There is no engine for others.
#pragma once

#include <string_view>

#include "data/unicode_classes.h"

namespace wavroute {

enum class SplitPattern { kGpt2, kLlama3, kQwen2 };

// The end of the match that begins at `at`, which is before `end`: each of the patterns matches at
// every character.
using MatchWord = const char* (*)(const CharacterReader& characters, const char* at,
                                  const char* end);

struct KnownPattern {
  SplitPattern pattern;
  std::string_view name;   // in a tokenizer's hash
  std::string_view regex;  // as it stands in a tokenizer.json
};

[[nodiscard]] MatchWord match_of(SplitPattern pattern);
[[nodiscard]] std::string_view name_of(SplitPattern pattern);
// Null where the expression is not known.
[[nodiscard]] const KnownPattern* find_pattern(std::string_view regex);

}  // namespace wavroute
