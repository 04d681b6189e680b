#include "data/split_patterns.h"

#include <algorithm>
#include <cstddef>

namespace wavroute {
namespace {

// The others differ from the first of their name only in how they are written: they match the same.
constexpr KnownPattern kKnown[] = {
    {SplitPattern::kGpt2, "gpt2",
     R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"},
    {SplitPattern::kGpt2, "gpt2",
     R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"},
    {SplitPattern::kLlama3, "llama3",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    {SplitPattern::kLlama3, "llama3",
     R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)"},
    {SplitPattern::kQwen2, "qwen2",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
};

constexpr uint8_t kLetterOrNumber = kLetter | kNumber;

// A mark: [^\s\p{L}\p{N}].
bool is_other(const Character& character) {
  return (character.classes & (kSpace | kLetterOrNumber)) == 0;
}

const char* skip_others(const CharacterReader& characters, const char* at, const char* end) {
  while (at != end) {
    const Character character = characters.read(at, end);
    if (!is_other(character)) break;
    at += character.length;
  }
  return at;
}

// 's|'t|'re|'ve|'m|'ll|'d at an apostrophe; `at` where there is none of them.
const char* contraction(const char* at, const char* end) {
  if (end - at < 2) return at;
  switch (at[1]) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return at + 2;
    default:
      break;
  }
  if (end - at < 3) return at;
  const bool is_long = ((at[1] == 'r' || at[1] == 'v') && at[2] == 'e') ||  // 're, 've
                       (at[1] == 'l' && at[2] == 'l');
  return is_long ? at + 3 : at;
}

char to_lower(char letter) {
  return letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter - 'A' + 'a') : letter;
}

// The same in any case. The long s (U+017F) is an s in another case.
const char* contraction_any_case(const char* at, const char* end) {
  char lower[3] = {};
  const auto length = std::min<std::ptrdiff_t>(end - at, 3);
  for (std::ptrdiff_t i = 0; i < length; ++i) lower[i] = to_lower(at[i]);
  if (length == 3 && lower[1] == '\xC5' && lower[2] == '\xBF') return at + 3;
  return at + (contraction(lower, lower + length) - lower);
}

// \s+(?!\S)|\s+ at a space: a run leaves its last space to the word after it.
const char* spaces(const CharacterReader& characters, const char* at, const char* end) {
  const char* last = at;  // where the last space of the run begins
  const char* after = at;
  while (after != end) {
    const Character character = characters.read(after, end);
    if ((character.classes & kSpace) == 0) return last == at ? after : last;
    last = after;
    after += character.length;
  }
  return after;
}

const char* match_gpt2(const CharacterReader& characters, const char* at, const char* end) {
  Character first = characters.read(at, end);
  if (first.code_point == '\'' && first.is_valid) {
    if (const char* after = contraction(at, end); after != at) return after;
  }
  const char* word = at;
  if (*at == ' ' && end - at > 1) {
    const Character second = characters.read(at + 1, end);
    if ((second.classes & kSpace) == 0) {
      first = second;
      ++word;
    }
  }
  const char* rest = word + first.length;
  if ((first.classes & kLetter) != 0) return characters.skip(rest, end, kLetter);
  if ((first.classes & kNumber) != 0) return characters.skip(rest, end, kNumber);
  if ((first.classes & kSpace) == 0) return skip_others(characters, rest, end);
  return spaces(characters, at, end);
}

// \s*[\r\n]+: up to the last newline of a run of spaces; `at` where it has none.
const char* lines(const CharacterReader& characters, const char* at, const char* end) {
  const char* after_newline = at;
  for (const char* space = at; space != end;) {
    const Character character = characters.read(space, end);
    if ((character.classes & kSpace) == 0) break;
    space += character.length;
    if ((character.classes & kNewline) != 0) after_newline = space;
  }
  return after_newline;
}

// What Llama 3 and Qwen 2 share: they differ in how many digits make a word.
template <int kMostDigits>
const char* match_llama3(const CharacterReader& characters, const char* at, const char* end) {
  const Character first = characters.read(at, end);
  if (*at == '\'') {
    if (const char* after = contraction_any_case(at, end); after != at) return after;
  }
  const char* rest = at + first.length;
  if ((first.classes & kLetter) != 0) return characters.skip(rest, end, kLetter);
  if ((first.classes & kNumber) != 0) {
    for (int digits = 1; digits < kMostDigits && rest != end; ++digits) {
      const Character next = characters.read(rest, end);
      if ((next.classes & kNumber) == 0) break;
      rest += next.length;
    }
    return rest;
  }
  const bool has_next = rest != end;
  const Character next = has_next ? characters.read(rest, end) : first;
  if (has_next && (first.classes & kNewline) == 0 && (next.classes & kLetter) != 0) {
    return characters.skip(rest + next.length, end, kLetter);
  }
  const bool is_mark_after_space = *at == ' ' && has_next && is_other(next);
  if (is_other(first) || is_mark_after_space) {
    return characters.skip(skip_others(characters, rest, end), end, kNewline);
  }
  if (const char* after = lines(characters, at, end); after != at) return after;
  return spaces(characters, at, end);
}

}  // namespace

MatchWord match_of(SplitPattern pattern) {
  switch (pattern) {
    case SplitPattern::kGpt2:
      return match_gpt2;
    case SplitPattern::kLlama3:
      return match_llama3<3>;
    case SplitPattern::kQwen2:
      return match_llama3<1>;
  }
  return nullptr;
}

std::string_view name_of(SplitPattern pattern) {
  return std::ranges::find(kKnown, pattern, &KnownPattern::pattern)->name;
}

const KnownPattern* find_pattern(std::string_view regex) {
  const auto* known = std::ranges::find(kKnown, regex, &KnownPattern::regex);
  return known == std::end(kKnown) ? nullptr : known;
}

}  // namespace wavroute
