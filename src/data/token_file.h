// Token files, and views of tokens in memory or in a file.
//
// A token file is a header of 64 bytes, the tokens, and a trailer of 64 bytes, all little-endian:
//   0  8 bytes   magic "WAVROUTE"
//   8  u32       version, 2
//  12  u32       width of a token in bytes, 2 or 4
//  16  u64       count of tokens
//  24  32 bytes  SHA-256 of the tokenizer (Tokenizer::hash()); all zero = not known
//  56  8 bytes   zero
// and in the trailer
//   0  32 bytes  SHA-256 of the text that the tokens stand for; all zero = not known
//  32  32 bytes  SHA-256 of everything before these 32 bytes
// Version 1 has no trailer. Any other version is refused.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/file.h"
#include "wavroute/tokenizer.h"

namespace wavroute {

// The bytes that one token of a vocabulary takes in a token file: 2 up to 65536 tokens, else 4.
[[nodiscard]] int token_width(int64_t vocab_size) noexcept;

// Tokens somewhere in memory, packed at 2 or 4 bytes each, in one part or in several, one after the
// other. Cheap to copy: it shares its storage.
class TokenView {
 public:
  TokenView() = default;
  // `owner` keeps `packed` alive; `name` is used in errors.
  TokenView(std::shared_ptr<const void> owner, std::span<const std::byte> packed, int width,
            int64_t vocab_size, std::string name);
  // The tokens of `parts`, all of one vocabulary and width, as one sequence.
  TokenView(std::span<const TokenView> parts, std::string name);

  [[nodiscard]] int64_t size() const noexcept { return size_; }
  [[nodiscard]] int64_t vocab_size() const noexcept { return vocab_size_; }
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  // The packed tokens, part by part.
  [[nodiscard]] std::vector<std::span<const std::byte>> packed() const;
  // Both read within [0, size()) and throw a UserError where a token isn't below vocab_size().
  [[nodiscard]] uint32_t at(int64_t index) const;
  void copy(int64_t begin, std::span<int64_t> out) const;
  [[nodiscard]] TokenView slice(int64_t begin, int64_t count) const;
  // The same tokens under another name in errors.
  [[nodiscard]] TokenView named(std::string name) const;
  // Reads every token: UserError as for at().
  void check_all() const;

 private:
  struct Part {
    std::shared_ptr<const void> owner;
    std::span<const std::byte> packed;
    int64_t first;     // its place in the whole
    std::string name;  // in errors, where there are several
  };
  template <typename Visit>
  void visit_parts(int64_t begin, int64_t count, Visit visit) const;

  std::shared_ptr<const std::vector<Part>> parts_;
  int width_ = 2;
  int64_t first_ = 0;  // where this slice begins in the whole
  int64_t size_ = 0;
  int64_t vocab_size_ = 0;
  std::string name_;
};

// Whether a file's content begins like a token file.
[[nodiscard]] bool has_token_magic(std::span<const std::byte> content) noexcept;

// What a token file says of itself. SHA-256 in hexadecimal; empty where it is not known.
struct TokenFileInfo {
  int64_t version = 0;
  int width = 2;  // bytes of a token
  int64_t tokens = 0;
  std::string tokenizer, text, checksum;
};

// UserError where the header or the file's length is wrong. The tokens are not looked at.
[[nodiscard]] TokenFileInfo read_token_file_info(const std::filesystem::path& path);

// Maps a token file. UserError, naming the file, for a wrong header, length or checksum, for a
// tokenizer that isn't the file's, and for a token that is beyond its vocabulary.
[[nodiscard]] TokenView open_token_file(const std::filesystem::path& path,
                                        const Tokenizer& tokenizer);

// The same for a file that must name the text with this SHA-256 (hexadecimal) and this tokenizer,
// and have a checksum; else a UserError.
[[nodiscard]] TokenView open_tokens_of_text(const std::filesystem::path& path,
                                            const Tokenizer& tokenizer,
                                            std::string_view text_sha256);

// The same for a file that ends with this checksum (hexadecimal), as recorded when it was written.
// The tokens are not read: a file of any size opens at once, and an id beyond the vocabulary is
// found where it is used.
[[nodiscard]] TokenView open_recorded_tokens(const std::filesystem::path& path,
                                             const Tokenizer& tokenizer, std::string_view checksum);

// A file of nothing but ids, `width` bytes each (2 or 4), as nanoGPT writes them, behind the first
// `begin` bytes. UserError for a length that is no multiple of the width and for an id beyond the
// vocabulary.
[[nodiscard]] TokenView open_raw_tokens(const std::filesystem::path& path, int width,
                                        const Tokenizer& tokenizer, int64_t begin = 0);

// The tokens `ids` as a view of memory.
[[nodiscard]] TokenView tokens_in_memory(std::span<const uint32_t> ids, int64_t vocab_size,
                                         std::string name);

// Writes a token file piece by piece; it appears under its name with commit(), or not at all.
class TokenFileWriter {
 public:
  // `count`: how many tokens there will be; commit() checks it. `text_sha256` (hexadecimal): of the
  // text that they stand for; empty = not known.
  TokenFileWriter(const std::filesystem::path& path, const Tokenizer& tokenizer, int64_t count,
                  std::string_view text_sha256 = {});
  void append(std::span<const uint32_t> ids);
  // Tokens as pack_tokens() packs them, at the width of the tokenizer's vocabulary.
  void append_packed(std::span<const std::byte> packed);
  // Returns the checksum that the file ends with, in hexadecimal.
  std::string commit();

 private:
  void write(std::span<const std::byte> bytes);

  AtomicFile file_;
  Sha256 sha256_;  // of everything written so far
  std::string text_sha256_;
  int width_;
  int64_t missing_;
};

// Appends `ids` in their packed form.
void pack_tokens(std::span<const uint32_t> ids, int width, std::vector<std::byte>& out);

}  // namespace wavroute
