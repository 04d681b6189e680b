// Tokenizers: text to token ids and back. Torch-free.
//
// A tokenizer is a table of byte strings (what each id stands for) and a rule that cuts text into
// them. Its file, tokenizer.json, is in the format of the Hugging Face `tokenizers` library, which
// loads it and gives the same ids.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace wavroute {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  [[nodiscard]] virtual std::string_view name() const noexcept = 0;  // "bytes" | "chars"
  [[nodiscard]] virtual int64_t vocab_size() const noexcept = 0;
  // The UTF-8 bytes that `id` stands for; UserError where id >= vocab_size().
  [[nodiscard]] virtual std::string_view token_bytes(uint32_t id) const = 0;
  // The ids of `text`. UserError for an unknown or invalid character, with its byte offset:
  // `where` names the text, and `offset` is the place in it at which `text` begins.
  [[nodiscard]] virtual std::vector<uint32_t> encode(std::string_view text,
                                                     std::string_view where = "the text",
                                                     uint64_t offset = 0) const = 0;
  // The text of tokenizer.json.
  [[nodiscard]] virtual std::string to_json() const = 0;
  // The token that stands after every document of a corpus; bytes and chars have none.
  [[nodiscard]] virtual std::optional<uint32_t> end_token() const { return std::nullopt; }

  // The exact bytes that `ids` stand for: decode(encode(text)) == text. Ids that a model chose may
  // stand for bytes that are not UTF-8; use StreamDecoder to show those.
  [[nodiscard]] std::string decode(std::span<const uint32_t> ids) const;
  // SHA-256 (hexadecimal) of the name and of every token's bytes: equal where encode() and
  // decode() are.
  [[nodiscard]] std::string hash() const;
};

// One token per byte; the id is the byte's value.
[[nodiscard]] std::shared_ptr<const Tokenizer> make_bytes_tokenizer();

// One token per code point; the vocabulary is the sorted code points of `text` (named `where`).
// UserError where the text is empty or not UTF-8 (with the byte offset).
[[nodiscard]] std::shared_ptr<const Tokenizer> make_chars_tokenizer(
    std::string_view text, std::string_view where = "the text");

// Reads what to_json() wrote; `where` names the file in errors (UserError).
[[nodiscard]] std::shared_ptr<const Tokenizer> tokenizer_from_json(
    std::string_view json, std::string_view where = "tokenizer.json");

// The tokenizer of a file: a tokenizer.json. UserError where there is none that can be read.
[[nodiscard]] std::shared_ptr<const Tokenizer> load_tokenizer(const std::filesystem::path& path);

// Turns ids into text as they arrive. Returns complete characters only (a token may hold a part of
// one) and always valid UTF-8: what can't become a character is replaced with U+FFFD.
class StreamDecoder {
 public:
  explicit StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer);

  // The characters that are complete with `id`; may be empty.
  [[nodiscard]] std::string feed(uint32_t id);
  // What remains at the end: U+FFFD for a character that was never completed, else nothing.
  [[nodiscard]] std::string finish();

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::string pending_;  // the first bytes of a character
};

}  // namespace wavroute
