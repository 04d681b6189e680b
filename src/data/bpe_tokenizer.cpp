#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <mutex>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/printable.h"
#include "base/utf8.h"
#include "data/added_tokens.h"
#include "data/bpe_file.h"
#include "data/bpe_model.h"
#include "data/byte_pair_json.h"
#include "data/normalizer.h"
#include "data/pre_tokenizer.h"
#include "data/token_decoder.h"
#include "data/tokenizer_kinds.h"
#include "io/file.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using nlohmann::json;

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD
constexpr std::string_view kMark = "\xE2\x96\x81";         // U+2581, which stands for a space

constexpr size_t kMostBytes = size_t{1} << 30;  // of a word too: its symbols have places of 31 bits

constexpr size_t kMostTokenBytes = size_t{256} << 20;

// Where no file says which token ends a document: the first of these that is a special token.
constexpr std::array<std::string_view, 8> kKnownEnds = {"<|end_of_text|>", "<|endoftext|>", "</s>",
                                                        "<|im_end|>",      "<|eot_id|>",    "<eos>",
                                                        "[EOS]",           "<|end|>"};

// Calls visit(character or U+FFFD, bytes that it stands for) for each of them.
template <typename Visit>
void for_each_valid(std::string_view text, Visit visit) {
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = utf8_step(text, at);
    const bool is_valid = step.state == Utf8State::kComplete;
    visit(is_valid ? text.substr(at, step.length) : kReplacement, is_valid ? 0 : step.length);
    at += step.length;
  }
}

// What tokens stand for.
struct TokenTexts {
  std::vector<std::string> bytes;        // by id
  std::vector<std::string> first_bytes;  // by id, as the first token of a text; empty if the same
};

// The rules of a tokenizer.json.
struct BpeRules {
  Normalizer normalizer;
  AddedTokens added;
  PreTokenizer pre_tokenizer;
  PromptFrame frame;
  TokenTexts texts;
};

const json& part_of(const json& object, const char* key) {
  static const json kMissing;
  const auto found = object.find(key);
  return found == object.end() ? kMissing : *found;
}

// A token that is found in normal forms stands for its own.
TokenTexts decode_all(const BpeVocabulary& vocabulary, const TokenDecoder& decoder,
                      const Normalizer& normalizer, const AddedTokens& added,
                      const std::string& where) {
  std::vector<std::string> spelled;
  for (const auto& token : vocabulary.tokens) spelled.push_back(token.value_or(""));
  for (const AddedToken& token : added.tokens()) {
    if (token.normalized) spelled[token.id] = normalizer.apply(token.content, true);
  }
  TokenTexts texts;
  size_t bytes = 0;
  for (const std::string& token : spelled) {
    texts.bytes.push_back(decoder.bytes_of(token, false));
    if (decoder.has_first_rule()) texts.first_bytes.push_back(decoder.bytes_of(token, true));
    bytes += texts.bytes.back().size();
    if (bytes > kMostTokenBytes) {
      throw expected(fmt::format("tokens of at most {} bytes in all", kMostTokenBytes), "more",
                     fmt::format("in {}", where));
    }
  }
  return texts;
}

class BpeTokenizer : public Tokenizer {
 public:
  BpeTokenizer(BpeVocabulary vocabulary, BpeRules rules, std::optional<uint32_t> end_token,
               std::string json_text)
      : model_(std::move(vocabulary)),
        rules_(std::move(rules)),
        end_token_(end_token),
        json_(std::move(json_text)) {
    const bool has_words = rules_.pre_tokenizer.cuts_at_spaces() || splits_at_marks();
    can_be_cut_ = has_words && rules_.normalizer.can_be_cut() && rules_.added.can_be_cut();
    cuts_at_lines_ = rules_.pre_tokenizer.cuts_at_lines();
  }

  [[nodiscard]] std::string_view name() const noexcept override { return "bpe"; }
  [[nodiscard]] int64_t vocab_size() const noexcept override {
    return std::ssize(rules_.texts.bytes);
  }
  [[nodiscard]] std::string_view token_bytes(uint32_t id) const override {
    if (std::cmp_greater_equal(id, vocab_size())) throw_unknown_id(id, vocab_size());
    return rules_.texts.bytes[id];
  }
  [[nodiscard]] std::string_view first_token_bytes(uint32_t id) const override {
    if (rules_.texts.first_bytes.empty()) return token_bytes(id);
    if (std::cmp_greater_equal(id, vocab_size())) throw_unknown_id(id, vocab_size());
    return rules_.texts.first_bytes[id];
  }

  [[nodiscard]] std::vector<uint32_t> encode(std::string_view text, std::string_view where,
                                             uint64_t offset) const override {
    return encode_text({text, where, offset, false, false});
  }
  [[nodiscard]] std::vector<uint32_t> encode_rest(std::string_view text, std::string_view where,
                                                  uint64_t offset) const override {
    return encode_text({text, where, offset, true, false});
  }
  [[nodiscard]] std::vector<uint32_t> encode_prompt(std::string_view text,
                                                    std::string_view where) const override {
    std::vector<uint32_t> ids = encode_marked(text, where);
    const auto& [before, after] = rules_.frame;
    ids.insert(ids.begin(), before.begin(), before.end());
    ids.insert(ids.end(), after.begin(), after.end());
    return ids;
  }
  [[nodiscard]] std::vector<uint32_t> encode_marked(std::string_view text,
                                                    std::string_view where) const override {
    return encode_text({text, where, 0, false, true});
  }
  [[nodiscard]] size_t cut(std::string_view text, size_t at) const override;
  [[nodiscard]] bool spells_all() const noexcept override { return model_.spells_all(); }
  [[nodiscard]] uint64_t replaced_bytes(std::string_view text) const override;

  [[nodiscard]] std::string to_json() const override { return json_; }
  [[nodiscard]] std::optional<uint32_t> end_token() const override { return end_token_; }
  [[nodiscard]] bool is_special(uint32_t id) const override { return rules_.added.is_special(id); }
  [[nodiscard]] std::string hash() const override;

 private:
  struct Task {
    std::string_view text, where;
    uint64_t offset;
    bool continues;     // the text goes on after one that was encoded
    bool with_special;  // special tokens are recognised
  };
  // What one call of encode_text() works with; calls take turns with it.
  using Scratch = BpeModel::Scratch;

  [[nodiscard]] std::vector<uint32_t> encode_text(const Task& task) const;
  // A text without added tokens, in its normal form.
  void encode_section(std::string_view section, bool is_start, const Task& task, Scratch& scratch,
                      std::vector<uint32_t>& ids) const;
  void encode_word(std::string_view word, const Task& task, Scratch& scratch,
                   std::vector<uint32_t>& ids) const;
  // Whether text[at] begins a part that can be encoded apart from what stands before it.
  [[nodiscard]] bool is_cut(std::string_view text, size_t at) const;
  [[noreturn]] void throw_unknown(std::string_view word, size_t at, const Task& task) const;

  [[nodiscard]] bool splits_at_marks() const {
    return rules_.pre_tokenizer.is_empty() && model_.begins_words_at_marks();
  }
  [[nodiscard]] std::unique_ptr<Scratch> take_scratch() const;
  void give_back(std::unique_ptr<Scratch> scratch) const;

  BpeModel model_;
  BpeRules rules_;
  std::optional<uint32_t> end_token_;
  std::string json_;
  CharacterReader characters_;
  bool can_be_cut_ = false;
  bool cuts_at_lines_ = false;
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Scratch>> scratches_;  // that no call uses now
};

std::unique_ptr<BpeTokenizer::Scratch> BpeTokenizer::take_scratch() const {
  const std::lock_guard lock(mutex_);
  if (scratches_.empty()) return std::make_unique<Scratch>();
  auto scratch = std::move(scratches_.back());
  scratches_.pop_back();
  return scratch;
}

void BpeTokenizer::give_back(std::unique_ptr<Scratch> scratch) const {
  const std::lock_guard lock(mutex_);
  scratches_.push_back(std::move(scratch));
}

std::vector<uint32_t> BpeTokenizer::encode_text(const Task& task) const {
  if (task.text.size() > kMostBytes) {
    throw expected(fmt::format("at most {} bytes of text at once", kMostBytes), task.text.size(),
                   fmt::format("in {}", task.where), "cut it into documents");
  }
  if (!rules_.pre_tokenizer.is_byte_level() && replaced_bytes(task.text) > 0) {
    std::string valid;
    for_each_valid(task.text, [&](std::string_view character, size_t) { valid += character; });
    Task repaired = task;
    repaired.text = valid;
    return encode_text(repaired);
  }
  auto scratch = take_scratch();
  std::vector<uint32_t> ids;
  ids.reserve(task.text.size() / 3);
  rules_.added.split(task.text, false, task.with_special, [&](const AddedTokens::Part& outer) {
    if (outer.id) {
      ids.push_back(*outer.id);
      return;
    }
    const bool is_first = outer.text.data() == task.text.data();
    const bool continues = task.continues && is_first;
    std::string normal;
    std::string_view section = outer.text;
    if (!rules_.normalizer.is_empty())
      section = normal = rules_.normalizer.apply(section, !continues);
    rules_.added.split(section, true, task.with_special, [&](const AddedTokens::Part& part) {
      if (part.id) {
        ids.push_back(*part.id);
      } else {
        const bool is_start = is_first && !continues && part.text.data() == section.data();
        encode_section(part.text, is_start, task, *scratch, ids);
      }
    });
  });
  give_back(std::move(scratch));
  return ids;
}

void BpeTokenizer::encode_section(std::string_view section, bool is_start, const Task& task,
                                  Scratch& scratch, std::vector<uint32_t>& ids) const {
  if (!splits_at_marks()) {
    rules_.pre_tokenizer.split(
        section, is_start, [&](std::string_view word) { encode_word(word, task, scratch, ids); });
    return;
  }
  for (size_t begin = 0; begin < section.size();) {
    size_t end = begin;
    while (section.substr(end).starts_with(kMark)) end += kMark.size();
    end = std::min(section.find(kMark, end), section.size());
    encode_word(section.substr(begin, end - begin), task, scratch, ids);
    begin = end;
  }
}

void BpeTokenizer::encode_word(std::string_view word, const Task& task, Scratch& scratch,
                               std::vector<uint32_t>& ids) const {
  if (const auto missing = model_.encode_word(word, scratch, ids)) {
    throw_unknown(word, *missing, task);
  }
}

void BpeTokenizer::throw_unknown(std::string_view word, size_t at, const Task& task) const {
  const std::string_view& text = task.text;
  const char* const place = word.data() + at;
  const bool is_in_text =
      std::less_equal<>()(text.data(), place) && std::less<>()(place, text.data() + text.size());
  const Character character = characters_.read(place, word.data() + word.size());
  throw expected(
      "characters of the tokenizer's vocabulary",
      character.is_valid && !rules_.pre_tokenizer.is_byte_level()
          ? fmt::format("U+{:04X}", character.code_point)
          : fmt::format("the byte 0x{:02X}", static_cast<unsigned char>(*place)),
      is_in_text ? fmt::format("at byte {} of {}",
                               task.offset + static_cast<size_t>(place - text.data()), task.where)
                 : fmt::format("in {}", task.where),
      "remove the character, or take a tokenizer that knows all bytes");
}

bool BpeTokenizer::is_cut(std::string_view text, size_t at) const {
  constexpr uint8_t kInWords = kLetter | kNumber;
  const char* const begin = text.data();
  const char* const place = begin + at;
  if (*place == ' ') return (characters_.classes_before(begin, place) & kInWords) != 0;
  return cuts_at_lines_ && at > 1 && place[-1] == '\n' &&
         (characters_.classes_before(begin, place - 1) & kSpace) == 0 &&
         (characters_.read(place, begin + text.size()).classes & kInWords) != 0;
}

size_t BpeTokenizer::cut(std::string_view text, size_t at) const {
  if (at >= text.size()) return text.size();
  if (!can_be_cut_) return 0;
  while (at > 0 && !is_cut(text, at)) --at;
  return at;
}

uint64_t BpeTokenizer::replaced_bytes(std::string_view text) const {
  uint64_t bytes = 0;
  if (rules_.pre_tokenizer.is_byte_level()) return bytes;
  for_each_valid(text, [&](std::string_view, size_t replaced) { bytes += replaced; });
  return bytes;
}

std::string BpeTokenizer::hash() const {
  const BpeVocabulary& vocabulary = model_.vocabulary();
  Sha256 sha;
  std::string content(name());
  content += fmt::format("\n{} {} {} {}\n", vocabulary.unknown ? int64_t{*vocabulary.unknown} : -1,
                         int{vocabulary.fuse_unknown}, int{vocabulary.byte_fallback},
                         int{vocabulary.ignore_merges});
  for (const auto& text : {rules_.normalizer.description(), rules_.added.description(),
                           rules_.pre_tokenizer.description()}) {
    content += fmt::format("{}:{}\n", text.size(), text);
  }
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const auto& token = vocabulary.tokens[id];
    if (token) content += fmt::format("{} {}:{}", id, token->size(), *token);
  }
  sha.update(content);
  for (const BpeMerge& merge : vocabulary.merges) {
    sha.update(fmt::format("\n{} {}", merge.left, merge.right));
  }
  return sha.hex();
}

// The end of documents that a file beside it, its own mark, or a known name says.
std::optional<std::string> end_of_documents(const json& added_tokens, const AddedTokens& added,
                                            const std::string& where) {
  if (auto marked = marked_end(added_tokens, where)) return marked;
  for (const std::string_view name : kKnownEnds) {
    const auto& tokens = added.tokens();
    const auto found = std::ranges::find(tokens, name, &AddedToken::content);
    if (found != tokens.end() && found->special) return std::string(name);
  }
  return std::nullopt;
}

// The same tokenizer with a mark at the token that ends documents.
std::string json_with_end(json tokenizer, uint32_t id, const std::string& content) {
  auto& added = tokenizer["added_tokens"];
  bool is_marked = false;
  for (auto& item : added) {
    item.erase(kEndOfDocument);
    if (item.value("content", std::string()) != content) continue;
    item[kEndOfDocument] = is_marked = true;
  }
  if (!is_marked) {
    json token = added_token<json>(id, content, /*special=*/true);
    token[kEndOfDocument] = true;
    added.push_back(std::move(token));
  }
  return tokenizer.dump() + "\n";
}

}  // namespace

std::shared_ptr<const Tokenizer> bpe_tokenizer_from_json(const json& json, std::string_view text,
                                                         const std::string& where,
                                                         std::string_view end_token) {
  BpeVocabulary vocabulary = read_bpe_vocabulary(part_of(json, "model"), where);
  BpeRules rules;
  rules.normalizer = Normalizer(part_of(json, "normalizer"), where);
  rules.pre_tokenizer = PreTokenizer(part_of(json, "pre_tokenizer"), where);
  rules.added = AddedTokens(read_added_tokens(part_of(json, "added_tokens"), vocabulary, where),
                            rules.normalizer);
  const auto vocab_size = std::ssize(vocabulary.tokens);
  rules.frame = read_post_processor(part_of(json, "post_processor"), vocab_size, where);
  const TokenDecoder decoder(part_of(json, "decoder"), where);
  vocabulary.is_byte_level = rules.pre_tokenizer.is_byte_level();
  if (decoder.is_byte_level() != vocabulary.is_byte_level) {
    throw expected("ByteLevel as pre-tokenizer and decoder, or as neither", "it as one of them",
                   fmt::format("in {}", where));
  }
  rules.texts = decode_all(vocabulary, decoder, rules.normalizer, rules.added, where);

  const auto end = end_of_documents(part_of(json, "added_tokens"), rules.added, where);
  const std::string wanted = end_token.empty() ? end.value_or("") : std::string(end_token);
  const auto found = std::ranges::find(vocabulary.tokens, std::optional(wanted));
  std::optional<uint32_t> end_id;
  if (found != vocabulary.tokens.end() && !wanted.empty()) {
    end_id = static_cast<uint32_t>(found - vocabulary.tokens.begin());
  } else if (!end_token.empty()) {
    throw expected("an end token of the tokenizer's vocabulary", printable(end_token),
                   fmt::format("for {}", where));
  }
  if (end_id && end != wanted) {
    const std::string marked = json_with_end(json, *end_id, wanted);
    return bpe_tokenizer_from_json(nlohmann::json::parse(marked), marked, where, {});
  }
  return std::make_shared<BpeTokenizer>(std::move(vocabulary), std::move(rules), end_id,
                                        std::string(text));
}

}  // namespace wavroute
