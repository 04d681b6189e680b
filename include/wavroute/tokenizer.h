// Tokenizers: text to token ids and back. Torch-free.
//
// A tokenizer is a table of byte strings (what each id stands for) and a rule that cuts text into
// them. Its file, tokenizer.json, is in the format of the Hugging Face `tokenizers` library, which
// loads it and gives the same ids. Any number of threads may use one at a time.
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

  // "bytes" | "chars" | "bpe"
  [[nodiscard]] virtual std::string_view name() const noexcept = 0;
  // One more than the largest id; between them may be ids that stand for nothing.
  [[nodiscard]] virtual int64_t vocab_size() const noexcept = 0;
  // The UTF-8 bytes that `id` stands for; UserError where id >= vocab_size().
  [[nodiscard]] virtual std::string_view token_bytes(uint32_t id) const = 0;
  // The same for the first token of a text: some tokenizers put a space before every text.
  [[nodiscard]] virtual std::string_view first_token_bytes(uint32_t id) const {
    return token_bytes(id);
  }

  // The ids of data: special tokens that the text spells out are text, and none is added.
  // UserError for an unknown or invalid character, with its byte offset: `where` names the text,
  // and `offset` is the place in it at which `text` begins.
  [[nodiscard]] virtual std::vector<uint32_t> encode(std::string_view text,
                                                     std::string_view where = "the text",
                                                     uint64_t offset = 0) const = 0;
  // The ids of `text` where it goes on after a text that was encoded and ended at a cut().
  [[nodiscard]] virtual std::vector<uint32_t> encode_rest(std::string_view text,
                                                          std::string_view where = "the text",
                                                          uint64_t offset = 0) const {
    return encode(text, where, offset);
  }
  // The largest offset <= at at which `text` may be cut: the ids of the whole are those of
  // encode() for what stands before it and of encode_rest() for the rest. 0 where there is none;
  // the text's size where `at` is not below it.
  [[nodiscard]] virtual size_t cut(std::string_view text, size_t at) const;
  // The ids of a prompt: special tokens that the text spells out are these, and what the
  // tokenizer's file says stands around a text is added.
  [[nodiscard]] virtual std::vector<uint32_t> encode_prompt(
      std::string_view text, std::string_view where = "the prompt") const {
    return encode(text, where);
  }
  // The ids of a text that has its special tokens in it, as a chat template writes it: they are
  // recognised, and nothing is added.
  [[nodiscard]] virtual std::vector<uint32_t> encode_marked(
      std::string_view text, std::string_view where = "the text") const {
    return encode(text, where);
  }
  // Whether encode() is known to have ids for every text: it then finds no unknown character.
  [[nodiscard]] virtual bool spells_all() const noexcept { return false; }
  // How many bytes of `text` encode() can't keep because they are not UTF-8: each run that no
  // character begins with becomes U+FFFD.
  [[nodiscard]] virtual uint64_t replaced_bytes(std::string_view /*text*/) const { return 0; }

  // The text of tokenizer.json.
  [[nodiscard]] virtual std::string to_json() const = 0;
  // The token that stands after every document of a corpus; bytes and chars have none.
  [[nodiscard]] virtual std::optional<uint32_t> end_token() const { return std::nullopt; }
  // Whether `id` is a mark (the end of a document, of a turn), not a part of anybody's text.
  [[nodiscard]] virtual bool is_special(uint32_t /*id*/) const { return false; }

  // The exact bytes that `ids` stand for: decode(encode(text)) == text, unless the tokenizer
  // changes texts (a normal form). Ids that a model chose may stand for bytes that are not UTF-8;
  // use StreamDecoder to show those.
  [[nodiscard]] std::string decode(std::span<const uint32_t> ids, bool skip_special = false) const;
  // SHA-256 (hexadecimal): equal where encode() and decode() are. For bytes and chars of the name
  // and of every token's bytes; for bpe of merges, added tokens and rules besides.
  [[nodiscard]] virtual std::string hash() const;
};

// One token per byte; the id is the byte's value.
[[nodiscard]] std::shared_ptr<const Tokenizer> make_bytes_tokenizer();

// One token per code point; the vocabulary is the sorted code points of `text` (named `where`).
// UserError where the text is empty or not UTF-8 (with the byte offset).
[[nodiscard]] std::shared_ptr<const Tokenizer> make_chars_tokenizer(
    std::string_view text, std::string_view where = "the text");

// Reads a tokenizer.json: one of bytes or of characters that to_json() wrote, or any byte-pair
// encoding whose parts are known (docs/tokenizers.md). `where` names the file in errors
// (UserError), `end_token` the token behind each document where another file says it: it then also
// stands in to_json().
[[nodiscard]] std::shared_ptr<const Tokenizer> tokenizer_from_json(
    std::string_view json, std::string_view where = "tokenizer.json",
    std::string_view end_token = {});

// The tokenizer of a file or folder: a tokenizer.json (with the tokenizer_config.json beside it,
// if there is one, for the end token), a GGUF file, or a folder with encoder.json and vocab.bpe, or
// with vocab.json and merges.txt, as GPT-2 has them; either of two stands for both. UserError where
// there is none that can be read.
[[nodiscard]] std::shared_ptr<const Tokenizer> load_tokenizer(const std::filesystem::path& path);

// Turns ids into text as they arrive. Returns complete characters only (a token may hold a part of
// one) and always valid UTF-8: what can't become a character is replaced with U+FFFD.
class StreamDecoder {
 public:
  // `continues`: the text goes on after another one, a prompt, of the same tokenizer.
  explicit StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool continues = false);

  // The characters that are complete with `id`; may be empty.
  [[nodiscard]] std::string feed(uint32_t id);
  // What remains at the end: U+FFFD for a character that was never completed, else nothing.
  [[nodiscard]] std::string finish();

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  bool is_first_;        // the next token
  std::string pending_;  // the first bytes of a character
};

}  // namespace wavroute
