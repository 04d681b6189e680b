// Where tokenizers come from: keys of a GGUF file, a tokenizer.json, llama2.c's tokenizer.bin.
#include "formats/tokenizer_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/printable.h"
#include "data/tokenizer_kinds.h"
#include "io/file.h"
#include "io/json_text.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

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
  const auto* tokens = file.texts("tokenizer.ggml.tokens");
  const auto* types = file.integers("tokenizer.ggml.token_type");
  const auto* scores = file.numbers("tokenizer.ggml.scores");
  const auto count = static_cast<size_t>(vocab_size);
  if (tokens == nullptr || tokens->size() != count) {
    throw expected(fmt::format("{} texts as tokenizer.ggml.tokens", count),
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

std::string text_of(const Vocabulary& vocabulary, const std::optional<int64_t>& id) {
  return id ? vocabulary.pieces[static_cast<size_t>(*id)].text : std::string();
}

// Of llama2.c's tokens, the first three are SentencePiece's <unk>, <s> and </s>, then come bytes.
Piece llama2c_piece(std::string text, float score, size_t id) {
  constexpr std::string_view kSpace = "\xe2\x96\x81";
  Piece piece{std::move(text), score};
  if (id < 3) {
    std::erase(piece.text, '\n');  // it writes "\n<s>\n"
    piece.type = id == 0 ? PieceType::kUnknown : PieceType::kControl;
  } else if (piece.text.size() == 6 && piece.text.starts_with("<0x") && piece.text.ends_with(">")) {
    piece.type = PieceType::kByte;
  } else {
    std::string marked;
    for (const char c : piece.text) marked += c == ' ' ? std::string(kSpace) : std::string(1, c);
    piece.text = std::move(marked);
  }
  return piece;
}

}  // namespace

void read_gguf_end_tokens(const GgufFile& file, ForeignModel& model) {
  model.bos_id = token_id(file, "tokenizer.ggml.bos_token_id", model.vocab_size);
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                          "tokenizer.ggml.eom_token_id"}) {
    const auto id = token_id(file, key, model.vocab_size);
    if (id && std::ranges::count(model.eos_ids, *id) == 0) model.eos_ids.push_back(*id);
  }
  if (const std::string* chat = file.text("tokenizer.chat_template")) {
    model.tokenizer.chat_template = *chat;
  }
}

void read_gguf_tokenizer(const GgufFile& file, ForeignModel& model) {
  const std::string where = printable(file.path().string());
  const std::string* kind = file.text("tokenizer.ggml.model");
  if (kind == nullptr || *kind == "none" || *kind == "no_vocab") return;
  read_gguf_end_tokens(file, model);
  Vocabulary vocabulary = gguf_vocabulary(file, model.vocab_size);
  const std::string* pre = file.text("tokenizer.ggml.pre");
  vocabulary.pre_tokenizer = pre == nullptr ? "gpt-2" : *pre;
  const bool is_pieces = *kind == "llama";
  const bool begins = is_pieces || vocabulary.pre_tokenizer == "llama-bpe";
  if (file.flag("tokenizer.ggml.add_bos_token").value_or(begins)) vocabulary.bos = model.bos_id;
  if (file.flag("tokenizer.ggml.add_eos_token").value_or(false) && !model.eos_ids.empty()) {
    vocabulary.eos = model.eos_ids.front();
  }
  vocabulary.adds_space = file.flag("tokenizer.ggml.add_space_prefix").value_or(true);
  if (is_pieces) {
    model.tokenizer.json = sentencepiece_json(vocabulary, where);
  } else if (*kind == "gpt2") {
    model.tokenizer.json = byte_level_json(vocabulary, where);
  } else {
    throw expected("\"gpt2\" or \"llama\" as tokenizer.ggml.model", printable(*kind),
                   fmt::format("in {}", where),
                   "--tokenizer PATH takes the tokenizer of a tokenizer.json instead");
  }
  model.tokenizer.bos = text_of(vocabulary, model.bos_id);
  if (!model.eos_ids.empty()) model.tokenizer.eos = text_of(vocabulary, model.eos_ids.front());
}

ForeignTokenizer read_llama2c_tokenizer(const std::filesystem::path& path, int64_t vocab_size) {
  const std::string where = printable(path.string());
  const std::string content = read_file(path, kTokenizerLimits.bytes);
  size_t at = 0;
  const auto take = [&]<typename T>(T value) {
    if (content.size() - at < sizeof value) {
      throw expected(fmt::format("a score and a text for each of {} tokens", vocab_size),
                     "the end of the file", fmt::format("in {}", where),
                     "llama2.c's tokenizer of the model's vocabulary is wanted");
    }
    std::memcpy(&value, content.data() + at, sizeof value);
    at += sizeof value;
    return value;
  };
  static_cast<void>(take(int32_t{}));  // of the longest token
  Vocabulary vocabulary;
  for (int64_t id = 0; id < vocab_size; ++id) {
    const auto score = take(float{});
    const auto length = take(int32_t{});
    if (length < 0 || static_cast<size_t>(length) > content.size() - at || std::isnan(score)) {
      throw expected("a text within the file and a score", length,
                     fmt::format("for token {} in {}", id, where),
                     "a tokenizer.json, a GGUF or llama2.c's tokenizer.bin is wanted");
    }
    vocabulary.pieces.push_back(llama2c_piece(content.substr(at, static_cast<size_t>(length)),
                                              score, static_cast<size_t>(id)));
    at += static_cast<size_t>(length);
  }
  if (at != content.size()) {
    throw expected(fmt::format("{} tokens", vocab_size), "more", fmt::format("in {}", where),
                   "llama2.c's tokenizer of the model's vocabulary is wanted");
  }
  if (vocab_size > 2) vocabulary.bos = 1;
  ForeignTokenizer result;
  result.json = sentencepiece_json(vocabulary, where);
  result.bos = text_of(vocabulary, vocabulary.bos);
  if (vocab_size > 2) result.eos = text_of(vocabulary, 2);
  return result;
}

ForeignTokenizer read_tokenizer_file(const std::filesystem::path& path, int64_t vocab_size) {
  if (path.extension() == ".bin") return read_llama2c_tokenizer(path, vocab_size);
  std::string beginning;
  {
    const MappedFile file(path);
    beginning = std::string(file.text().substr(0, 4));
  }
  if (beginning == "GGUF") {
    ForeignModel model;
    model.vocab_size = vocab_size;
    read_gguf_tokenizer(GgufFile(path), model);
    return model.tokenizer;
  }
  ForeignTokenizer result;
  result.json = read_file(path, kTokenizerLimits.bytes);
  const nlohmann::json json = parse_json(result.json, printable(path.string()), kTokenizerLimits);
  if (!json.is_object() || !json.contains("model")) {
    throw expected("a tokenizer.json, a GGUF or llama2.c's tokenizer.bin", json_excerpt(json),
                   fmt::format("in {}", printable(path.string())));
  }
  return result;
}

}  // namespace wavroute
