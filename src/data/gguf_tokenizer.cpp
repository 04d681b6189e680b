#include "data/gguf_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/printable.h"
#include "data/vocabulary.h"
#include "io/file.h"
#include "io/gguf_kinds.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

constexpr const char* kTokens = "tokenizer.ggml.tokens";

// An id of the vocabulary under `key`; nothing where there is none. ggml writes 2^32 - 1 for none.
std::optional<int64_t> token_id(const GgufFile& file, const char* key, int64_t vocab_size) {
  const auto id = file.integer(key);
  if (!id || *id == 0xffffffffLL || *id < 0) return std::nullopt;
  if (*id < vocab_size) return id;
  throw expected(fmt::format("a token below {} as {}", vocab_size, key), *id,
                 fmt::format("in {}", printable(file.path().string())));
}

Vocabulary gguf_vocabulary(const GgufFile& file, int64_t vocab_size) {
  const std::string where = printable(file.path().string());
  const auto* tokens = file.texts(kTokens);
  const auto* types = file.integers("tokenizer.ggml.token_type");
  const auto* scores = file.numbers("tokenizer.ggml.scores");
  const auto count = static_cast<size_t>(vocab_size);
  if (tokens == nullptr || tokens->size() != count) {
    throw expected(fmt::format("{} texts as {}", count, kTokens),
                   tokens == nullptr ? "none" : fmt::format("{}", tokens->size()),
                   fmt::format("in {}", where));
  }
  if ((types != nullptr && types->size() != count) ||
      (scores != nullptr && scores->size() != count)) {
    throw expected(fmt::format("a type and a score for each of {} tokens", count), "others",
                   fmt::format("in {}", where));
  }
  Vocabulary vocabulary;
  for (size_t id = 0; id < count; ++id) {
    Piece piece{(*tokens)[id]};
    if (types != nullptr) {
      const int64_t type = (*types)[id];
      // 0 is llama.cpp's word for a token without a type.
      if (type < 0 || type > 6) {
        throw expected("token types from 0 to 6", type, fmt::format("in {}", where));
      }
      piece.type = type == 0 ? PieceType::kNormal : static_cast<PieceType>(type);
    }
    if (scores != nullptr) piece.score = (*scores)[id];
    if (std::isnan(piece.score)) {
      throw expected("scores that are numbers", "a NaN", fmt::format("in {}", where));
    }
    vocabulary.pieces.push_back(std::move(piece));
  }
  if (const auto* merges = file.texts("tokenizer.ggml.merges")) vocabulary.merges = *merges;
  return vocabulary;
}

}  // namespace

bool is_gguf(const std::filesystem::path& file) {
  return MappedFile(file).text().starts_with(kGgufMagic);
}

GgufEnds read_gguf_ends(const GgufFile& file, int64_t vocab_size) {
  GgufEnds ends;
  ends.bos = token_id(file, "tokenizer.ggml.bos_token_id", vocab_size);
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                          "tokenizer.ggml.eom_token_id"}) {
    const auto id = token_id(file, key, vocab_size);
    if (id && std::ranges::count(ends.eos, *id) == 0) ends.eos.push_back(*id);
  }
  if (const std::string* chat = file.text("tokenizer.chat_template")) ends.chat_template = *chat;
  return ends;
}

GgufTokenizer read_gguf_tokenizer(const GgufFile& file, int64_t vocab_size) {
  const std::string where = printable(file.path().string());
  const std::string* kind = file.text("tokenizer.ggml.model");
  GgufTokenizer tokenizer;
  if (kind == nullptr || *kind == "none" || *kind == "no_vocab") return tokenizer;
  tokenizer.ends = read_gguf_ends(file, vocab_size);
  const GgufEnds& ends = tokenizer.ends;
  std::optional<int64_t> eos;
  if (!ends.eos.empty()) eos = ends.eos.front();
  Vocabulary vocabulary = gguf_vocabulary(file, vocab_size);
  const std::string* pre = file.text("tokenizer.ggml.pre");
  vocabulary.pre_tokenizer = pre == nullptr ? "gpt-2" : *pre;
  const bool is_pieces = *kind == "llama";
  const bool begins = is_pieces || vocabulary.pre_tokenizer == "llama-bpe";
  if (file.flag("tokenizer.ggml.add_bos_token").value_or(begins)) vocabulary.bos = ends.bos;
  if (file.flag("tokenizer.ggml.add_eos_token").value_or(false)) vocabulary.eos = eos;
  vocabulary.adds_space = file.flag("tokenizer.ggml.add_space_prefix").value_or(true);
  if (is_pieces) {
    tokenizer.json = sentencepiece_json(vocabulary, where);
  } else if (*kind == "gpt2") {
    tokenizer.json = byte_level_json(vocabulary, where);
  } else {
    throw expected("\"gpt2\" or \"llama\" as tokenizer.ggml.model", printable(*kind),
                   fmt::format("in {}", where),
                   "--tokenizer PATH takes the tokenizer of a tokenizer.json instead");
  }
  tokenizer.bos = vocabulary.text_of(ends.bos);
  tokenizer.eos = vocabulary.text_of(eos);
  return tokenizer;
}

GgufTokenizer read_gguf_tokenizer(const GgufFile& file) {
  const auto* tokens = file.texts(kTokens);
  return read_gguf_tokenizer(file, tokens == nullptr ? 0 : std::ssize(*tokens));
}

void throw_no_tokenizer(const std::filesystem::path& file) {
  throw expected("a GGUF file with a tokenizer", "one without",
                 fmt::format("in {}", printable(file.string())),
                 "take a file of the same model that has one, or a tokenizer.json");
}

}  // namespace wavroute
