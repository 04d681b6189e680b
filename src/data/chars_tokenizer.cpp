#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/utf8.h"
#include "data/characters.h"
#include "data/tokenizer_json.h"
#include "data/tokenizer_kinds.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

constexpr uint32_t kCodePoints = 0x110000;
constexpr uint32_t kReplacement = 0xFFFD;
constexpr int32_t kNone = -1;

[[noreturn]] void throw_invalid_utf8(std::string_view text, size_t at, std::string_view where,
                                     uint64_t offset) {
  throw expected(
      "UTF-8", fmt::format("the byte 0x{:02X}", static_cast<unsigned char>(text[at])),
      fmt::format("at byte {} of {}", offset + at, where),
      "convert the text to UTF-8, or set data.tokenizer = \"bytes\", which takes any bytes");
}

// Calls visit(code point, byte offset in `text`) for each character.
template <typename Visit>
void for_each_code_point(std::string_view text, std::string_view where, uint64_t offset,
                         Visit visit) {
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = utf8_step(text, at);
    if (step.state != Utf8State::kComplete) throw_invalid_utf8(text, at, where, offset);
    visit(step.code_point, at);
    at += step.length;
  }
}

class CharsTokenizer : public Tokenizer {
 public:
  // `code_points`: what each id stands for; distinct, not empty. `with_unknown`: one is U+FFFD,
  // which stands for all others.
  explicit CharsTokenizer(const std::vector<uint32_t>& code_points, bool with_unknown = false) {
    ids_.assign(*std::max_element(code_points.begin(), code_points.end()) + 1, kNone);
    for (const uint32_t code_point : code_points) {
      ids_[code_point] = static_cast<int32_t>(characters_.size());
      append_utf8(characters_.emplace_back(), code_point);
    }
    if (with_unknown) unknown_ = static_cast<uint32_t>(ids_[kReplacement]);
  }

  [[nodiscard]] bool knows(uint32_t code_point) const {
    return code_point < ids_.size() && ids_[code_point] != kNone;
  }
  [[nodiscard]] std::optional<uint32_t> unknown() const { return unknown_; }

  [[nodiscard]] std::string_view name() const noexcept override { return "chars"; }
  [[nodiscard]] int64_t vocab_size() const noexcept override {
    return static_cast<int64_t>(characters_.size());
  }

  [[nodiscard]] std::string_view token_bytes(uint32_t id) const override {
    if (id >= characters_.size()) throw_unknown_id(id, vocab_size());
    return characters_[id];
  }

  [[nodiscard]] std::vector<uint32_t> encode(std::string_view text, std::string_view where,
                                             uint64_t offset) const override {
    std::vector<uint32_t> ids;
    ids.reserve(text.size());
    for_each_code_point(text, where, offset, [&](uint32_t code_point, size_t at) {
      if (knows(code_point)) {
        ids.push_back(static_cast<uint32_t>(ids_[code_point]));
      } else if (unknown_) {
        ids.push_back(*unknown_);
      } else {
        throw expected(
            fmt::format("a character of the vocabulary ({} characters of the training text)",
                        characters_.size()),
            fmt::format("U+{:04X}", code_point),
            fmt::format("at byte {} of {}", offset + at, where),
            "data.unknown = \"drop\" (eval: --unknown drop) leaves such characters out; "
            "data.tokenizer = \"bytes\" knows every text");
      }
    });
    return ids;
  }

  // A vocabulary of one-character words; the text is cut at every character. Where there is no
  // token for unknown characters, the name below is in no vocabulary, so that they are an error.
  [[nodiscard]] std::string to_json() const override {
    nlohmann::json vocab = nlohmann::json::object();
    for (size_t id = 0; id < characters_.size(); ++id) vocab[characters_[id]] = id;
    return tokenizer_json_text({{"type", "Split"},
                                {"pattern", {{"Regex", "[\\s\\S]"}}},
                                {"behavior", "Isolated"},
                                {"invert", false}},
                               {{"type", "Fuse"}},
                               {{"type", "WordLevel"},
                                {"vocab", vocab},
                                {"unk_token", unknown_ ? characters_[*unknown_] : "<unk>"}});
  }

 private:
  std::vector<std::string> characters_;  // by id, in UTF-8
  std::vector<int32_t> ids_;             // by code point; kNone where it is not in the vocabulary
  std::optional<uint32_t> unknown_;      // stands for the others
};

}  // namespace

CharacterSet::CharacterSet() : seen_(kCodePoints) {}

void CharacterSet::add(std::string_view text, std::string_view where, uint64_t offset) {
  for_each_code_point(text, where, offset,
                      [&](uint32_t code_point, size_t) { seen_[code_point] = true; });
}

std::string CharacterSet::text() const {
  std::string text;
  for (uint32_t code_point = 0; code_point < kCodePoints; ++code_point) {
    if (seen_[code_point]) append_utf8(text, code_point);
  }
  return text;
}

std::shared_ptr<const Tokenizer> make_chars_tokenizer(const CharacterSet& characters,
                                                      bool with_unknown) {
  CharacterSet all = characters;
  std::string unknown;
  if (with_unknown) append_utf8(unknown, kReplacement);
  all.add(unknown, "U+FFFD");
  const std::string text = all.text();
  if (characters.text().empty()) {
    throw expected("text to take the characters from", "nothing");
  }
  std::vector<uint32_t> code_points;
  for_each_code_point(text, "the characters", 0,
                      [&](uint32_t code_point, size_t) { code_points.push_back(code_point); });
  return std::make_shared<CharsTokenizer>(code_points, with_unknown);
}

std::shared_ptr<const Tokenizer> make_chars_tokenizer(std::string_view text,
                                                      std::string_view where) {
  if (text.empty()) {
    throw expected("text to take the characters from", "nothing", fmt::format("in {}", where));
  }
  CharacterSet characters;
  characters.add(text, where);
  return make_chars_tokenizer(characters, /*with_unknown=*/false);
}

std::optional<uint32_t> unknown_token(const Tokenizer& tokenizer) {
  const auto* chars = dynamic_cast<const CharsTokenizer*>(&tokenizer);
  return chars == nullptr ? std::nullopt : chars->unknown();
}

std::optional<KnownText> replace_unknown(const Tokenizer& tokenizer, std::string_view text,
                                         UnknownText choice) {
  const auto* chars = dynamic_cast<const CharsTokenizer*>(&tokenizer);
  if (chars == nullptr || choice == UnknownText::kError) return std::nullopt;
  KnownText known;
  size_t kept = 0;  // up to here the text is in `known`
  const auto leave_out = [&](size_t begin, size_t length) {
    known.text += text.substr(kept, begin - kept);
    if (choice == UnknownText::kUnk) append_utf8(known.text, kReplacement);
    kept = begin + length;
    ++known.unknown;
  };
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = utf8_step(text, at);
    const bool is_known = step.state == Utf8State::kComplete && chars->knows(step.code_point);
    if (!is_known) leave_out(at, step.length);
    at += step.length;
  }
  if (known.unknown == 0) return std::nullopt;
  if (choice == UnknownText::kUnk && !chars->knows(kReplacement)) {
    throw expected("a vocabulary with a token for unknown characters (U+FFFD)", "one without", {},
                   "a model trained with data.unknown = \"unk\" has one; \"drop\" leaves such "
                   "characters out");
  }
  known.text += text.substr(kept);
  return known;
}

std::shared_ptr<const Tokenizer> chars_tokenizer_from_json(const nlohmann::json& json) {
  const auto& model = json.at("model");
  if (model.at("type") != "WordLevel" || json.at("pre_tokenizer").at("type") != "Split") {
    return nullptr;
  }
  const auto& vocab = model.at("vocab");
  if (!vocab.is_object() || vocab.empty()) return nullptr;
  const auto unk = model.find("unk_token");
  const bool has_unknown =
      unk != model.end() && unk->is_string() && vocab.contains(unk->get<std::string>());
  if (has_unknown && *unk != "\xEF\xBF\xBD") return nullptr;  // U+FFFD
  std::vector<uint32_t> code_points(vocab.size());
  std::vector<bool> given(vocab.size());
  for (const auto& [character, value] : vocab.items()) {
    if (!value.is_number_unsigned() || character.empty()) return nullptr;
    const auto id = value.get<uint64_t>();
    const Utf8Step step = utf8_step(character, 0);
    const bool one_character =
        step.state == Utf8State::kComplete && step.length == character.size();
    if (!one_character || id >= given.size() || given[id]) return nullptr;
    given[id] = true;
    code_points[id] = step.code_point;
  }
  auto chars = std::make_shared<CharsTokenizer>(code_points, has_unknown);
  // Anything that we don't write, such as added tokens or a normalizer, makes another tokenizer.
  return is_of_form(json, nlohmann::json::parse(chars->to_json())) ? chars : nullptr;
}

}  // namespace wavroute
