#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/utf8.h"
#include "data/characters.h"
#include "data/tokenizer_kinds.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

constexpr uint32_t kCodePoints = 0x110000;
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
  // `code_points`: what each id stands for; distinct, not empty.
  explicit CharsTokenizer(const std::vector<uint32_t>& code_points) {
    ids_.assign(*std::max_element(code_points.begin(), code_points.end()) + 1, kNone);
    for (const uint32_t code_point : code_points) {
      ids_[code_point] = static_cast<int32_t>(characters_.size());
      append_utf8(characters_.emplace_back(), code_point);
    }
  }

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
      const int32_t id = code_point < ids_.size() ? ids_[code_point] : kNone;
      if (id == kNone) {
        throw expected(
            fmt::format("a character of the vocabulary ({} characters of the training text)",
                        characters_.size()),
            fmt::format("U+{:04X}", code_point),
            fmt::format("at byte {} of {}", offset + at, where),
            "remove the character, add it to the training text, or set data.tokenizer = "
            "\"bytes\", which knows every text");
      }
      ids.push_back(static_cast<uint32_t>(id));
    });
    return ids;
  }

  // A vocabulary of one-character words; the text is cut at every character. There is no token for
  // unknown characters: the name below is in no vocabulary, so that they are an error.
  [[nodiscard]] std::string to_json() const override {
    nlohmann::json vocab = nlohmann::json::object();
    for (size_t id = 0; id < characters_.size(); ++id) vocab[characters_[id]] = id;
    return tokenizer_json_text({{"type", "Split"},
                                {"pattern", {{"Regex", "[\\s\\S]"}}},
                                {"behavior", "Isolated"},
                                {"invert", false}},
                               {{"type", "Fuse"}},
                               {{"type", "WordLevel"}, {"vocab", vocab}, {"unk_token", "<unk>"}});
  }

 private:
  std::vector<std::string> characters_;  // by id, in UTF-8
  std::vector<int32_t> ids_;             // by code point; kNone where it is not in the vocabulary
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

std::shared_ptr<const Tokenizer> make_chars_tokenizer(std::string_view text,
                                                      std::string_view where) {
  CharacterSet characters;
  characters.add(text, where);
  const std::string all = characters.text();
  std::vector<uint32_t> code_points;
  for_each_code_point(all, where, 0,
                      [&](uint32_t code_point, size_t) { code_points.push_back(code_point); });
  if (code_points.empty()) {
    throw expected("text to take the characters from", "nothing", fmt::format("in {}", where));
  }
  return std::make_shared<CharsTokenizer>(code_points);
}

std::shared_ptr<const Tokenizer> chars_tokenizer_from_json(const nlohmann::json& json) {
  const auto& model = json.at("model");
  if (model.at("type") != "WordLevel" || json.at("pre_tokenizer").at("type") != "Split") {
    return nullptr;
  }
  const auto& vocab = model.at("vocab");
  if (!vocab.is_object() || vocab.empty()) return nullptr;
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
  return std::make_shared<CharsTokenizer>(code_points);
}

}  // namespace wavroute
