#include "data/split.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <span>
#include <system_error>
#include <vector>

#include "base/utf8.h"
#include "data/characters.h"
#include "data/known_formats.h"
#include "data/llmc_file.h"
#include "data/nearest_file.h"
#include "data/scored_bytes.h"
#include "io/file.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kValidShare = 20;  // one part in this many is for validation

[[noreturn]] void throw_too_short(const Split& whole, int64_t sequence, int64_t given) {
  throw expected(fmt::format("at least {} tokens (a sequence of model.context + 1 = {} for "
                             "training, and one for validation)",
                             2 * sequence, sequence),
                 given, fmt::format("in {}", whole.name),
                 "use a longer text, a smaller model.context, or another text as data.valid");
}

// Whether every token is one byte or one character.
bool encodes_characters(const Tokenizer& tokenizer) {
  return tokenizer.name() == "bytes" || tokenizer.name() == "chars";
}

// An offset at which at least the last `sequence` tokens of a text begin.
size_t last_tokens(const Split& whole, int64_t sequence, const Tokenizer& tokenizer) {
  const std::string_view text = whole.text;
  size_t at = text.size();
  if (!encodes_characters(tokenizer)) {
    // Tokens of several characters: a character alone says nothing of their number.
    for (auto bytes = static_cast<size_t>(sequence); at > 0; bytes *= 2) {
      at = bytes < text.size() ? utf8_boundary(text, text.size() - bytes) : 0;
      const auto ids = tokenizer.encode(text.substr(at), whole.name, whole.offset + at);
      if (std::ssize(ids) >= sequence) break;
    }
    return at;
  }
  for (int64_t count = 0; at > 0 && count < sequence;) {
    const size_t before = utf8_boundary(text, at - 1);
    count += std::ssize(
        tokenizer.encode(text.substr(before, at - before), whole.name, whole.offset + before));
    at = before;
  }
  return at;
}

size_t cut_text(const Split& whole, int64_t sequence, const Tokenizer& tokenizer) {
  const std::string_view text = whole.text;
  // A character is at most 4 bytes, and other tokens are hardly longer than 32 on average: above
  // this length the training part is long enough anyhow.
  const int64_t most_bytes = encodes_characters(tokenizer) ? 4 : 32;
  if (std::ssize(text) < 2 * most_bytes * sequence) {
    const int64_t given = std::ssize(tokenizer.encode(text, whole.name, whole.offset));
    if (given < 2 * sequence) throw_too_short(whole, sequence, given);
    return last_tokens(whole, sequence, tokenizer);
  }
  const size_t share = text.size() / kValidShare;
  const size_t cut =
      std::min(utf8_boundary(text, text.size() - share), last_tokens(whole, sequence, tokenizer));
  const size_t line_end = text.rfind('\n', cut - 1);
  const bool is_near = line_end != std::string_view::npos && cut - (line_end + 1) <= share;
  return is_near ? line_end + 1 : cut;
}

// Sets is_tokens and raw_width, and refuses what is no text.
void set_kind(Split& split, DataFormat format) {
  std::optional<NotText> refused;
  const bool is_ours = has_token_magic(std::as_bytes(std::span(split.text)));
  switch (format) {
    case DataFormat::kAuto:
      split.is_tokens = is_ours;
      if (const auto llmc = find_llmc_header(split.text, split.name)) {
        split.is_tokens = true;
        split.raw_width = llmc->width;
        split.raw_begin = kLlmcHeaderBytes;
      } else if (!is_ours) {
        refused = not_text(split.text);
      }
      break;
    case DataFormat::kText:
      refused =
          is_ours ? NotText{"a token file", "data.format = \"auto\" (eval: --format auto) reads it"}
                  : known_format(split.text);
      break;
    case DataFormat::kBytes:
      break;
    case DataFormat::kTokens16:
    case DataFormat::kTokens32:
      split.is_tokens = true;
      split.raw_width = format == DataFormat::kTokens16 ? 2 : 4;
      break;
  }
  if (refused) {
    throw expected("text", refused->what, fmt::format("in {}", split.name), refused->hint);
  }
}

}  // namespace

Split text_split(std::string name, std::string text) {
  Split split;
  const auto owner = std::make_shared<const std::string>(std::move(text));
  split.name = std::move(name);
  split.owner = owner;
  split.text = *owner;
  return split;
}

Split open_split(const fs::path& path, DataFormat format) {
  std::error_code ignored;
  if (!fs::exists(path, ignored)) {
    throw expected("a text file or a token file", fmt::format("no {}", path.string()), {},
                   nearest_beside(path));
  }
  const auto file = std::make_shared<const MappedFile>(path);
  Split split;
  split.name = path.string();
  split.owner = file;
  split.text = file->text();
  if (split.text.empty()) {
    throw expected("text", fmt::format("an empty file: {}", split.name));
  }
  set_kind(split, format);
  return split;
}

void open_split_tokens(Split& split, const Tokenizer& tokenizer) {
  split.tokens = split.raw_width == 0
                     ? open_token_file(split.name, tokenizer)
                     : open_raw_tokens(split.name, split.raw_width, tokenizer, split.raw_begin);
}

std::pair<Split, Split> part_split(const Split& whole, int64_t sequence,
                                   const Tokenizer& tokenizer) {
  Split train = whole, valid = whole;
  valid.name += " (its last part, for validation)";
  valid.unknown = 0;  // counted with the other part
  if (whole.is_tokens) {
    const int64_t size = whole.tokens.size();
    if (size < 2 * sequence) throw_too_short(whole, sequence, size);
    const int64_t cut = size - std::max(size / kValidShare, sequence);
    train.tokens = whole.tokens.slice(0, cut);
    valid.tokens = whole.tokens.slice(cut, size - cut);
  } else {
    const size_t cut = cut_text(whole, sequence, tokenizer);
    train.text = whole.text.substr(0, cut);
    valid.text = whole.text.substr(cut);
    valid.offset = whole.offset + cut;
  }
  return {std::move(train), std::move(valid)};
}

void limit_split(Split& split, int64_t max_bytes, const Tokenizer& tokenizer) {
  split.sha256.clear();  // of another text
  split.bytes = -1;
  if (!split.is_tokens) {
    split.text = split.text.substr(0, utf8_boundary(split.text, static_cast<size_t>(max_bytes)));
    return;
  }
  const ScoredBytes scored(tokenizer);
  int64_t count = 0, bytes = 0;
  while (count < split.tokens.size()) {
    bytes += scored.of(split.tokens.at(count));
    if (bytes > max_bytes) break;
    ++count;
  }
  split.tokens = split.tokens.slice(0, count);
}

void apply_unknown(Split& split, const Tokenizer& tokenizer, UnknownText choice) {
  if (split.is_tokens) return;
  auto known = replace_unknown(tokenizer, split.text, choice);
  if (!known) return;
  Split changed = text_split(std::move(split.name), std::move(known->text));
  changed.unknown = known->unknown;
  split = std::move(changed);
}

int64_t text_bytes(const TokenView& tokens, const Tokenizer& tokenizer) {
  const ScoredBytes scored(tokenizer);
  int64_t bytes = 0;
  for (int64_t i = 0; i < tokens.size(); ++i) bytes += scored.of(tokens.at(i));
  return bytes;
}

}  // namespace wavroute
