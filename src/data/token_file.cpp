#include "data/token_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cstring>
#include <utility>

#include "wavroute/error.h"

namespace wavroute {
namespace {

static_assert(std::endian::native == std::endian::little,
              "token files are read without conversion");

constexpr std::string_view kMagic = "WAVROUTE";
constexpr uint32_t kVersion = 2;
constexpr uint32_t kWithoutTrailer = 1;
constexpr size_t kDigestBytes = 32;
using Digest = std::array<uint8_t, kDigestBytes>;

struct Header {
  std::array<char, 8> magic;
  uint32_t version;
  uint32_t width;
  uint64_t count;
  Digest tokenizer;
  std::array<uint8_t, 8> zero;
};
static_assert(sizeof(Header) == 64);

struct Trailer {
  Digest text;
  Digest content;  // of all bytes of the file before it
};
static_assert(sizeof(Trailer) == 64);

// All zero for an empty text.
Digest digest_from_hex(std::string_view hex) {
  Digest digest{};
  for (size_t i = 0; 2 * i < hex.size() && i < kDigestBytes; ++i) {
    const std::string_view pair = hex.substr(2 * i, 2);
    std::from_chars(pair.data(), pair.data() + pair.size(), digest[i], 16);
  }
  return digest;
}

// Empty for the digest that stands for "not known".
std::string hex_from_digest(const Digest& digest) {
  if (std::all_of(digest.begin(), digest.end(), [](uint8_t byte) { return byte == 0; })) return {};
  std::string hex;
  for (const uint8_t byte : digest) hex += fmt::format("{:02x}", byte);
  return hex;
}

[[noreturn]] void throw_bad(const std::filesystem::path& path, std::string_view expected,
                            const std::string& given) {
  throw wavroute::expected(
      expected, given, fmt::format("in {}", path.string()),
      "the token file is damaged or of another kind; make it again from its text");
}

size_t trailer_bytes(const Header& header) {
  return header.version == kWithoutTrailer ? 0 : sizeof(Trailer);
}

Header read_header(std::span<const std::byte> content, const std::filesystem::path& path) {
  Header header{};
  if (content.size() < sizeof header) {
    throw_bad(path, "a header of 64 bytes", fmt::format("{} bytes", content.size()));
  }
  std::memcpy(&header, content.data(), sizeof header);
  if (!has_token_magic(content)) throw_bad(path, "a token file (magic WAVROUTE)", "another file");
  if (header.version != kVersion && header.version != kWithoutTrailer) {
    throw_bad(path, "token file version 1 or 2", fmt::format("version {}", header.version));
  }
  if (header.width != 2 && header.width != 4) {
    throw_bad(path, "a token width of 2 or 4 bytes", fmt::format("{}", header.width));
  }
  if (header.zero != decltype(header.zero){}) {
    throw_bad(path, "zeros in the last 8 bytes of the header", "something else");
  }
  const size_t around = sizeof header + trailer_bytes(header);
  if (content.size() < around) {
    throw_bad(path, fmt::format("at least {} bytes", around), fmt::format("{}", content.size()));
  }
  const uint64_t body = content.size() - around;
  // Divided, not multiplied: a hostile count must not overflow.
  if (body % header.width != 0 || header.count != body / header.width) {
    throw_bad(path,
              fmt::format("{} tokens of {} bytes after the header", header.count, header.width),
              fmt::format("{} bytes", body));
  }
  return header;
}

// Of a whole file; all zeros for a version without one.
Trailer trailer_of(std::span<const std::byte> content, const Header& header) {
  Trailer trailer{};
  if (trailer_bytes(header) == 0) return trailer;
  std::memcpy(&trailer, content.last(sizeof trailer).data(), sizeof trailer);
  return trailer;
}

// Verifies the file's checksum, where it has one.
Trailer check_trailer(std::span<const std::byte> content, const Header& header,
                      const std::filesystem::path& path) {
  const Trailer trailer = trailer_of(content, header);
  if (trailer_bytes(header) == 0) return trailer;
  const std::string found = sha256_hex(content.first(content.size() - kDigestBytes));
  if (digest_from_hex(found) != trailer.content) {
    throw_bad(path, "content with the checksum at its end", "other content");
  }
  return trailer;
}

template <typename Token>
void unpack(const std::byte* packed, std::span<int64_t> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    Token token;
    std::memcpy(&token, packed + i * sizeof token, sizeof token);
    out[i] = token;
  }
}

template <typename Token>
void pack(std::span<const uint32_t> ids, std::byte* packed) {
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto token = static_cast<Token>(ids[i]);
    std::memcpy(packed + i * sizeof token, &token, sizeof token);
  }
}

}  // namespace

int token_width(int64_t vocab_size) noexcept { return vocab_size <= 65536 ? 2 : 4; }

TokenView::TokenView(std::shared_ptr<const void> owner, std::span<const std::byte> packed,
                     int width, int64_t vocab_size, std::string name)
    : parts_(std::make_shared<const std::vector<Part>>(
          std::vector<Part>{{std::move(owner), packed, 0, {}}})),
      width_(width),
      size_(std::ssize(packed) / width),
      vocab_size_(vocab_size),
      name_(std::move(name)) {}

TokenView::TokenView(std::span<const TokenView> parts, std::string name) : name_(std::move(name)) {
  std::vector<Part> all;
  for (const TokenView& view : parts) {
    if (!all.empty() && (view.width_ != width_ || view.vocab_size_ != vocab_size_)) {
      throw Failure(expectation("parts of one vocabulary", "others", "in " + name_));
    }
    width_ = view.width_;
    vocab_size_ = view.vocab_size_;
    for (const auto& packed : view.packed()) {
      all.push_back({view.parts_, packed, size_, view.name_});
      size_ += std::ssize(packed) / width_;
    }
  }
  parts_ = std::make_shared<const std::vector<Part>>(std::move(all));
}

// Calls visit(part, packed tokens of it) for the parts of [begin, begin + count).
template <typename Visit>
void TokenView::visit_parts(int64_t begin, int64_t count, Visit visit) const {
  if (count == 0) return;
  int64_t at = first_ + begin;
  const int64_t end = at + count;
  auto part = std::upper_bound(parts_->begin(), parts_->end(), at,
                               [](int64_t place, const Part& p) { return place < p.first; });
  for (--part; at < end; ++part) {
    const int64_t held = std::ssize(part->packed) / width_;
    const int64_t taken = std::min(end, part->first + held) - at;
    visit(*part, part->packed.subspan(static_cast<size_t>((at - part->first) * width_),
                                      static_cast<size_t>(taken * width_)));
    at += taken;
  }
}

std::vector<std::span<const std::byte>> TokenView::packed() const {
  std::vector<std::span<const std::byte>> all;
  visit_parts(0, size_, [&](const Part&, auto packed) { all.push_back(packed); });
  return all;
}

uint32_t TokenView::at(int64_t index) const {
  int64_t token = 0;
  copy(index, std::span(&token, 1));
  return static_cast<uint32_t>(token);
}

void TokenView::copy(int64_t begin, std::span<int64_t> out) const {
  const int64_t count = std::ssize(out);
  if (begin < 0 || begin > size() - count) {
    throw expected(fmt::format("tokens within the {} of {}", size(), name_),
                   fmt::format("{} to {}", begin, begin + count));
  }
  visit_parts(begin, count, [&](const Part& part, std::span<const std::byte> packed) {
    const auto filled = out.first(packed.size() / static_cast<size_t>(width_));
    out = out.subspan(filled.size());
    width_ == 2 ? unpack<uint16_t>(packed.data(), filled) : unpack<uint32_t>(packed.data(), filled);
    const auto bad =
        std::find_if(filled.begin(), filled.end(), [&](int64_t t) { return t >= vocab_size_; });
    if (bad == filled.end()) return;
    const int64_t place = (packed.data() - part.packed.data()) / width_ + (bad - filled.begin());
    throw expected(fmt::format("tokens below {}", vocab_size_), *bad,
                   fmt::format("at token {} of {}", place, part.name.empty() ? name_ : part.name),
                   "the file is damaged, or was made with another tokenizer: data.tokenizer names "
                   "the one that made it");
  });
}

TokenView TokenView::slice(int64_t begin, int64_t count) const {
  TokenView part = *this;
  part.first_ += begin;
  part.size_ = count;
  return part;
}

TokenView TokenView::named(std::string name) const {
  TokenView same = *this;
  same.name_ = std::move(name);
  return same;
}

void TokenView::check_all() const {
  constexpr int64_t kPiece = int64_t{1} << 16;
  std::vector<int64_t> piece(static_cast<size_t>(std::min(kPiece, size())));
  for (int64_t begin = 0; begin < size(); begin += kPiece) {
    copy(begin, std::span(piece).first(static_cast<size_t>(std::min(kPiece, size() - begin))));
  }
}

bool has_token_magic(std::span<const std::byte> content) noexcept {
  return content.size() >= kMagic.size() &&
         std::memcmp(content.data(), kMagic.data(), kMagic.size()) == 0;
}

TokenFileInfo read_token_file_info(const std::filesystem::path& path) {
  const MappedFile file(path);
  const Header header = read_header(file.bytes(), path);
  const Trailer trailer = trailer_of(file.bytes(), header);
  return {static_cast<int64_t>(header.version), static_cast<int>(header.width),
          static_cast<int64_t>(header.count),   hex_from_digest(header.tokenizer),
          hex_from_digest(trailer.text),        hex_from_digest(trailer.content)};
}

namespace {

struct OpenedFile {
  TokenView tokens;
  std::string tokenizer, text;  // SHA-256 in hexadecimal; empty where it is not known
};

std::shared_ptr<const MappedFile> map_for(const std::filesystem::path& path,
                                          const Tokenizer& tokenizer, Header& header) {
  auto file = std::make_shared<const MappedFile>(path);
  header = read_header(file->bytes(), path);
  const std::string hash = hex_from_digest(header.tokenizer);
  if (hash.empty() || hash == tokenizer.hash()) return file;
  throw expected(fmt::format("tokens of the tokenizer \"{}\" ({} tokens)", tokenizer.name(),
                             tokenizer.vocab_size()),
                 "those of another tokenizer", fmt::format("in {}", path.string()),
                 "make the token file again from its text, with this tokenizer");
}

TokenView view_of(std::shared_ptr<const MappedFile> file, const Header& header,
                  const Tokenizer& tokenizer, const std::filesystem::path& path) {
  const auto packed = file->bytes().subspan(sizeof header, header.count * header.width);
  return {std::move(file), packed, static_cast<int>(header.width), tokenizer.vocab_size(),
          path.string()};
}

OpenedFile open_checked(const std::filesystem::path& path, const Tokenizer& tokenizer) {
  Header header{};
  const auto file = map_for(path, tokenizer, header);
  const Trailer trailer = check_trailer(file->bytes(), header, path);
  return {view_of(file, header, tokenizer, path), hex_from_digest(header.tokenizer),
          hex_from_digest(trailer.text)};
}

}  // namespace

TokenView open_recorded_tokens(const std::filesystem::path& path, const Tokenizer& tokenizer,
                               std::string_view checksum) {
  Header header{};
  const auto file = map_for(path, tokenizer, header);
  if (hex_from_digest(trailer_of(file->bytes(), header).content) != checksum) {
    throw_bad(path, fmt::format("the checksum {}", checksum), "another");
  }
  return view_of(file, header, tokenizer, path);
}

TokenView open_token_file(const std::filesystem::path& path, const Tokenizer& tokenizer) {
  TokenView tokens = open_checked(path, tokenizer).tokens;
  tokens.check_all();
  return tokens;
}

TokenView open_tokens_of_text(const std::filesystem::path& path, const Tokenizer& tokenizer,
                              std::string_view text_sha256) {
  OpenedFile opened = open_checked(path, tokenizer);
  if (opened.text != text_sha256 || opened.tokenizer.empty()) {
    throw_bad(path, fmt::format("tokens of the text {}", text_sha256), "those of another");
  }
  // The checksum holds, so the tokenizer made these ids: none is beyond its vocabulary.
  return std::move(opened.tokens);
}

TokenView open_raw_tokens(const std::filesystem::path& path, int width, const Tokenizer& tokenizer,
                          int64_t begin) {
  const auto file = std::make_shared<const MappedFile>(path);
  const auto ids =
      file->bytes().subspan(std::min(file->bytes().size(), static_cast<size_t>(begin)));
  if (ids.size() % static_cast<size_t>(width) != 0) {
    throw expected(fmt::format("ids of {} bytes each", width), fmt::format("{} bytes", ids.size()),
                   fmt::format("in {}", path.string()),
                   "data.format = \"tokens16\" or \"tokens32\" is for files of nothing but ids");
  }
  TokenView tokens(file, ids, width, tokenizer.vocab_size(), path.string());
  tokens.check_all();
  return tokens;
}

TokenView tokens_in_memory(std::span<const uint32_t> ids, int64_t vocab_size, std::string name) {
  const auto packed = std::make_shared<std::vector<std::byte>>();
  const int width = token_width(vocab_size);
  pack_tokens(ids, width, *packed);
  return {packed, *packed, width, vocab_size, std::move(name)};
}

void pack_tokens(std::span<const uint32_t> ids, int width, std::vector<std::byte>& out) {
  const size_t begin = out.size();
  out.resize(begin + ids.size() * static_cast<size_t>(width));
  width == 2 ? pack<uint16_t>(ids, out.data() + begin) : pack<uint32_t>(ids, out.data() + begin);
}

TokenFileWriter::TokenFileWriter(const std::filesystem::path& path, const Tokenizer& tokenizer,
                                 int64_t count, std::string_view text_sha256)
    : file_(path),
      text_sha256_(text_sha256),
      width_(token_width(tokenizer.vocab_size())),
      missing_(count) {
  Header header{};
  std::copy(kMagic.begin(), kMagic.end(), header.magic.begin());
  header.version = kVersion;
  header.width = static_cast<uint32_t>(width_);
  header.count = static_cast<uint64_t>(count);
  header.tokenizer = digest_from_hex(tokenizer.hash());
  write(std::as_bytes(std::span(&header, 1)));
}

void TokenFileWriter::write(std::span<const std::byte> bytes) {
  sha256_.update(bytes);
  file_.write(bytes);
}

void TokenFileWriter::append(std::span<const uint32_t> ids) {
  std::vector<std::byte> packed;
  pack_tokens(ids, width_, packed);
  append_packed(packed);
}

void TokenFileWriter::append_packed(std::span<const std::byte> packed) {
  write(packed);
  missing_ -= static_cast<int64_t>(packed.size()) / width_;
}

std::string TokenFileWriter::commit() {
  if (missing_ != 0) {
    throw Failure(
        expectation("as many tokens as were promised", fmt::format("{} too few", missing_)));
  }
  Trailer trailer{};
  trailer.text = digest_from_hex(text_sha256_);
  write(std::as_bytes(std::span(&trailer.text, 1)));
  std::string checksum = sha256_.hex();
  trailer.content = digest_from_hex(checksum);
  file_.write(std::as_bytes(std::span(&trailer.content, 1)));
  file_.commit();
  return checksum;
}

}  // namespace wavroute
