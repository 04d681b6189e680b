#include "data/pre_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/printable.h"
#include "data/tokenizer_json.h"
#include "data/unicode_classes.h"
#include "io/json_text.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using nlohmann::json;

constexpr int kDeepest = 8;
constexpr std::string_view kPart = "pre-tokenizer";
constexpr std::string_view kKinds = "ByteLevel, Split, Digits, Metaspace or Sequence";

const CharacterReader& characters() {
  static const CharacterReader reader;
  return reader;
}

}  // namespace

// The arguments of split() that no step changes; `is_start` holds for the first piece of a step.
struct PreTokenizer::Call {
  const char* start;  // of the text, where that is the beginning of what is encoded, else null
  const Visit& visit;
};

PreTokenizer::PreTokenizer(const json& json, const std::string& where) {
  if (!json.is_null()) add(json, where, 0);
}

void PreTokenizer::add(const json& json, const std::string& where, int depth) {
  const std::string type = type_of(json, kPart, where);
  if (is_byte_level_) {
    throw expected("the pre-tokenizer ByteLevel at the end", printable(type) + " after it",
                   fmt::format("in {}", where));
  }
  if (type == "Sequence" && depth < kDeepest) {
    for (const auto& part : list_of(json, "pretokenizers", where)) add(part, where, depth + 1);
  } else if (type == "Split") {
    add_split(json, where);
  } else if (type == "Digits") {
    steps_.push_back({Kind::kDigits, {}, flag_of(json, "individual_digits", false, where), {}, {}});
  } else if (type == "ByteLevel") {
    add_byte_level(json, where);
  } else if (type == "Metaspace") {
    add_metaspace(json, where);
  } else {
    refuse_kind(kPart, kKinds, type, where);
  }
  check_steps(steps_.size(), kPart, where);
}

void PreTokenizer::add_split(const json& json, const std::string& where) {
  const auto pattern = json.find("pattern");
  const bool has_regex =
      pattern != json.end() && pattern->is_object() && pattern->contains("Regex");
  const std::string regex = has_regex ? text_of(*pattern, "Regex", where) : std::string();
  const KnownPattern* known = find_pattern(regex);
  if (known == nullptr) {
    throw expected("a Split pre-tokenizer with the regular expression of GPT-2, Llama 3 or Qwen 2",
                   has_regex ? printable(regex) : "another pattern", fmt::format("in {}", where),
                   "there is no engine for other expressions: docs/tokenizers.md");
  }
  // The known expressions leave nothing between two matches: these behaviours are all the same.
  const std::string behavior = text_of(json, "behavior", where);
  const bool inverted = flag_of(json, "invert", false, where);
  if (behavior != "Isolated" && !(behavior == "Removed" && inverted)) {
    throw expected(
        "a Split pre-tokenizer that isolates its matches",
        fmt::format("the behavior {}{}", printable(behavior), inverted ? ", inverted" : ""),
        fmt::format("in {}", where));
  }
  steps_.push_back({Kind::kPattern, known->pattern, true, {}, {}});
}

void PreTokenizer::add_byte_level(const json& json, const std::string& where) {
  if (flag_of(json, "add_prefix_space", true, where)) {
    steps_.push_back({Kind::kPrefixSpace, {}, true, {}, {}});
  }
  if (flag_of(json, "use_regex", true, where)) {
    steps_.push_back({Kind::kPattern, SplitPattern::kGpt2, true, {}, {}});
  }
  is_byte_level_ = true;
}

void PreTokenizer::add_metaspace(const json& json, const std::string& where) {
  Step step{Kind::kMetaspace, {}, flag_of(json, "split", true, where), {}, Prefix::kAlways};
  step.mark = text_of(json, "replacement", where);
  if (step.mark.empty() ||
      characters().read(step.mark.data(), step.mark.data() + step.mark.size()).length !=
          step.mark.size()) {
    throw expected("one character as the replacement of a Metaspace pre-tokenizer",
                   printable(step.mark), fmt::format("in {}", where));
  }
  if (json.contains("prepend_scheme")) {
    const std::string scheme = text_of(json, "prepend_scheme", where);
    if (scheme != "always" && scheme != "first" && scheme != "never") {
      throw expected("always, first or never as prepend_scheme", printable(scheme),
                     fmt::format("in {}", where));
    }
    step.prefix = scheme == "always"  ? Prefix::kAlways
                  : scheme == "first" ? Prefix::kFirst
                                      : Prefix::kNever;
  } else if (!flag_of(json, "add_prefix_space", true, where)) {  // as older files say it
    step.prefix = Prefix::kNever;
  }
  steps_.push_back(std::move(step));
}

void PreTokenizer::split(std::string_view text, bool is_start, const Visit& visit) const {
  run(0, text, {is_start ? text.data() : nullptr, visit});
}

void PreTokenizer::run(size_t step, std::string_view text, const Call& call) const {
  if (text.empty()) return;
  if (step == steps_.size()) {
    call.visit(text);
    return;
  }
  switch (steps_[step].kind) {
    case Kind::kPattern: {
      const MatchWord match = match_of(steps_[step].pattern);
      const bool is_last = step + 1 == steps_.size();
      const char* const end = text.data() + text.size();
      for (const char* at = text.data(); at != end;) {
        const char* const after = match(characters(), at, end);
        const std::string_view word(at, static_cast<size_t>(after - at));
        if (is_last) {
          call.visit(word);
        } else {
          run(step + 1, word, call);
        }
        at = after;
      }
      return;
    }
    case Kind::kDigits:
      split_digits(step, text, call);
      return;
    case Kind::kPrefixSpace:
      if (text.front() == ' ') {
        run(step + 1, text, call);
      } else {
        std::string prefixed = " ";
        prefixed += text;
        run(step + 1, prefixed,
            {text.data() == call.start ? prefixed.data() : nullptr, call.visit});
      }
      return;
    case Kind::kMetaspace:
      split_at_marks(step, text, call);
      return;
  }
}

void PreTokenizer::split_digits(size_t step, std::string_view text, const Call& call) const {
  const char* const end = text.data() + text.size();
  const char* begin = text.data();  // of a piece
  bool is_number = false;           // the piece
  for (const char* at = begin; at != end;) {
    const Character character = characters().read(at, end);
    const bool is_digit = (character.classes & kNumeric) != 0;
    const bool is_cut = is_digit != is_number || (is_digit && steps_[step].splits);
    if (is_cut) {
      run(step + 1, {begin, static_cast<size_t>(at - begin)}, call);
      begin = at;
      is_number = is_digit;
    }
    at += character.length;
  }
  run(step + 1, {begin, static_cast<size_t>(end - begin)}, call);
}

void PreTokenizer::split_at_marks(size_t step, std::string_view text, const Call& call) const {
  const auto& [kind, pattern, splits, mark, prefix] = steps_[step];
  const bool is_first = text.data() == call.start;
  std::string marked;
  marked.reserve(text.size() + mark.size());
  for (const char byte : text) {
    if (byte == ' ') {
      marked += mark;
    } else {
      marked.push_back(byte);
    }
  }
  const bool has_prefix = prefix == Prefix::kAlways || (prefix == Prefix::kFirst && is_first);
  if (has_prefix && !marked.starts_with(mark)) marked.insert(0, mark);
  const Call inner{is_first ? marked.data() : nullptr, call.visit};
  const std::string_view whole = marked;
  size_t begin = 0;
  while (splits && begin < whole.size()) {
    const size_t end = std::min(whole.find(mark, begin + 1), whole.size());
    run(step + 1, whole.substr(begin, end - begin), inner);
    begin = end;
  }
  if (!splits) run(step + 1, whole, inner);
}

bool PreTokenizer::cuts_at_spaces() const {
  return std::ranges::any_of(steps_, [](const Step& step) {
    return step.kind == Kind::kPattern || (step.kind == Kind::kMetaspace && step.splits);
  });
}

// Of two line ends a match leaves the second to what stands behind it, so one must stand alone.
bool PreTokenizer::cuts_at_lines() const {
  return cuts_at_spaces() && std::ranges::all_of(steps_, [](const Step& step) {
           return step.kind == Kind::kPattern || step.kind == Kind::kDigits;
         });
}

std::string PreTokenizer::description() const {
  std::string text;
  for (const Step& step : steps_) {
    switch (step.kind) {
      case Kind::kPattern:
        text += fmt::format("split {};", name_of(step.pattern));
        break;
      case Kind::kDigits:
        text += step.splits ? "digits;" : "numbers;";
        break;
      case Kind::kPrefixSpace:
        text += "prefix;";
        break;
      case Kind::kMetaspace:
        text +=
            fmt::format("marks {} {} {};", step.mark, step.splits, static_cast<int>(step.prefix));
        break;
    }
  }
  return text + (is_byte_level_ ? "bytes" : "characters");
}

}  // namespace wavroute
