#include "data/unicode_forms.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/utf8.h"
#include "data/unicode_classes.h"

namespace wavroute {
namespace {

// k...Runs: (first, last, step, to) for characters that become one, `to` grows as they do.
// k...Lists: (character, how many, these). kCombiningRanges: (first << 8 | class), each up to the
// next. kPairs: (first, second, what they compose to). Hangul syllables are computed.
#include "data/unicode_forms.inc"

constexpr uint32_t kCodePoints = 0x110000;

// The arithmetic of Hangul: a syllable is a leading consonant, a vowel and perhaps a trailing one.
constexpr uint32_t kSyllables = 0xAC00, kLeading = 0x1100, kVowels = 0x1161, kTrailing = 0x11A7;
constexpr uint32_t kLeadingCount = 19, kVowelCount = 21, kTrailingCount = 28;
constexpr uint32_t kSyllableCount = kLeadingCount * kVowelCount * kTrailingCount;

using Text = std::vector<uint32_t>;
using Map = std::unordered_map<uint32_t, Text>;

Map read_map(std::span<const uint32_t> runs, std::span<const uint32_t> lists) {
  Map map;
  for (size_t i = 0; i < runs.size(); i += 4) {
    for (uint32_t c = runs[i]; c <= runs[i + 1]; c += runs[i + 2]) {
      map[c] = {runs[i + 3] + c - runs[i]};
    }
  }
  for (size_t i = 0; i < lists.size(); i += 2 + lists[i + 1]) {
    map[lists[i]].assign(lists.begin() + static_cast<std::ptrdiff_t>(i) + 2,
                         lists.begin() + static_cast<std::ptrdiff_t>(i + 2 + lists[i + 1]));
  }
  return map;
}

const Map& lower_map() {
  static const Map map = read_map(kLowerRuns, kLowerLists);
  return map;
}

class Forms {
 public:
  Forms();

  // Whether the character may become another one, or move, in a text of this form.
  [[nodiscard]] bool may_change(uint32_t c, NormalForm form) const {
    return (may_change_[c] & bit_of(form)) != 0;
  }
  void decompose(uint32_t c, bool is_compatible, Text& out) const;
  // Puts marks of lower classes first, between starters.
  void sort_marks(Text& text) const;
  void compose(Text& text) const;

 private:
  static uint8_t bit_of(NormalForm form) {
    return static_cast<uint8_t>(1U
                                << ((form.is_compatible ? 2U : 0U) + (form.is_composed ? 1U : 0U)));
  }
  void mark(uint32_t c, NormalForm form) { may_change_[c] |= bit_of(form); }
  [[nodiscard]] uint32_t composed(uint32_t first, uint32_t second) const;

  Map canonical_, compatible_;
  std::unordered_map<uint64_t, uint32_t> pairs_;
  std::vector<uint8_t> combining_;   // class, by code point
  std::vector<uint8_t> may_change_;  // by code point; a bit a form
};

constexpr NormalForm kForms[] = {{false, false}, {false, true}, {true, false}, {true, true}};

Forms::Forms()
    : canonical_(read_map(kCanonicalRuns, kCanonicalLists)),
      compatible_(read_map(kCompatibleRuns, kCompatibleLists)),
      combining_(kCodePoints),
      may_change_(kCodePoints) {
  for (size_t i = 0; i < std::size(kCombiningRanges); ++i) {
    const bool is_last = i + 1 == std::size(kCombiningRanges);
    std::fill(combining_.begin() + (kCombiningRanges[i] >> 8),
              is_last ? combining_.end() : combining_.begin() + (kCombiningRanges[i + 1] >> 8),
              static_cast<uint8_t>(kCombiningRanges[i]));
  }
  const auto mark_all = [&](uint32_t c) {
    for (const NormalForm form : kForms) mark(c, form);
  };
  for (uint32_t c = 0; c < kCodePoints; ++c) {
    if (combining_[c] != 0) mark_all(c);
  }
  for (size_t i = 0; i < std::size(kPairs); i += 3) {
    pairs_[uint64_t{kPairs[i]} << 32 | kPairs[i + 1]] = kPairs[i + 2];
    for (const bool is_compatible : {false, true}) mark(kPairs[i + 1], {is_compatible, true});
  }
  for (uint32_t i = 0; i < kVowelCount; ++i) mark_all(kVowels + i);
  for (uint32_t i = 1; i < kTrailingCount; ++i) mark_all(kTrailing + i);
  for (uint32_t i = 0; i < kSyllableCount; ++i) {
    for (const bool is_compatible : {false, true}) mark(kSyllables + i, {is_compatible, false});
  }
  for (const Map* map : {&canonical_, &compatible_}) {
    for (const auto& [c, ignored] : *map) {
      for (const NormalForm form : kForms) {
        Text text;
        decompose(c, form.is_compatible, text);
        if (form.is_composed) compose(text);
        if (text.size() != 1 || text.front() != c) mark(c, form);
      }
    }
  }
}

void Forms::decompose(uint32_t c, bool is_compatible, Text& out) const {
  if (c >= kSyllables && c < kSyllables + kSyllableCount) {
    const uint32_t place = c - kSyllables;
    out.push_back(kLeading + place / (kVowelCount * kTrailingCount));
    out.push_back(kVowels + place / kTrailingCount % kVowelCount);
    if (place % kTrailingCount != 0) out.push_back(kTrailing + place % kTrailingCount);
    return;
  }
  for (const Map* map : {is_compatible ? &compatible_ : nullptr, &canonical_}) {
    if (map == nullptr) continue;
    if (const auto found = map->find(c); found != map->end()) {
      out.insert(out.end(), found->second.begin(), found->second.end());
      return;
    }
  }
  out.push_back(c);
}

void Forms::sort_marks(Text& text) const {
  for (auto at = text.begin(); at != text.end();) {
    const auto is_starter = [&](uint32_t c) { return combining_[c] == 0; };
    const auto begin = std::find_if_not(at, text.end(), is_starter);
    const auto end = std::find_if(begin, text.end(), is_starter);
    std::stable_sort(begin, end,
                     [&](uint32_t a, uint32_t b) { return combining_[a] < combining_[b]; });
    at = end;
  }
}

uint32_t Forms::composed(uint32_t first, uint32_t second) const {
  const uint32_t leading = first - kLeading, vowel = second - kVowels;
  if (leading < kLeadingCount && vowel < kVowelCount) {
    return kSyllables + (leading * kVowelCount + vowel) * kTrailingCount;
  }
  const uint32_t syllable = first - kSyllables, trailing = second - kTrailing;
  if (syllable < kSyllableCount && syllable % kTrailingCount == 0 && trailing > 0 &&
      trailing < kTrailingCount) {
    return first + trailing;
  }
  const auto found = pairs_.find(uint64_t{first} << 32 | second);
  return found == pairs_.end() ? 0 : found->second;
}

// A character joins the last starter unless one of its class or a higher one, or another starter,
// stands between them.
void Forms::compose(Text& text) const {
  size_t starter = text.size();  // its place in what is kept; none yet
  size_t kept = 0;
  int last_class = -1;  // of the last character kept behind the starter; -1 if there is none
  for (const uint32_t c : text) {
    const int own_class = combining_[c];
    if (starter < kept && (last_class < own_class)) {
      if (const uint32_t joined = composed(text[starter], c); joined != 0) {
        text[starter] = joined;
        continue;
      }
    }
    if (own_class == 0) {
      starter = kept;
      last_class = -1;
    } else {
      last_class = own_class;
    }
    text[kept++] = c;
  }
  text.resize(kept);
}

const Forms& forms() {
  static const Forms made;
  return made;
}

}  // namespace

std::string normal_form(std::string_view text, NormalForm form) {
  const CharacterReader characters;
  std::string out;
  out.reserve(text.size());
  const char* const end = text.data() + text.size();
  const char* copied = text.data();    // before it everything is in `out`
  const char* previous = text.data();  // the character before `at`, if it is one
  Text part;
  for (const char* at = text.data(); at != end;) {
    Character character = characters.read(at, end);
    const auto changes = [&] {
      return character.is_valid && character.code_point >= 0x80 &&
             forms().may_change(character.code_point, form);
    };
    if (!changes()) {
      previous = character.is_valid ? at : at + character.length;
      at += character.length;
      continue;
    }
    // From the character before it, which it may join, up to one that joins nothing.
    out.append(copied, previous);
    part.clear();
    for (at = previous; at != end; at += character.length) {
      character = characters.read(at, end);
      if (!character.is_valid || (at != previous && !changes())) break;
      forms().decompose(character.code_point, form.is_compatible, part);
    }
    forms().sort_marks(part);
    if (form.is_composed) forms().compose(part);
    for (const uint32_t c : part) append_utf8(out, c);
    copied = previous = at;
  }
  out.append(copied, end);
  return out;
}

std::string lowercase(std::string_view text) {
  const CharacterReader characters;
  std::string out;
  out.reserve(text.size());
  const char* const end = text.data() + text.size();
  for (const char* at = text.data(); at != end;) {
    const Character character = characters.read(at, end);
    const auto lower =
        character.is_valid ? lower_map().find(character.code_point) : lower_map().end();
    if (lower == lower_map().end()) {
      out.append(at, character.length);
    } else {
      for (const uint32_t c : lower->second) append_utf8(out, c);
    }
    at += character.length;
  }
  return out;
}

}  // namespace wavroute
