// Where tokenizers of models come from: files of tokenizers, llama2.c's tokenizer.bin.
#include "formats/tokenizer_files.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/printable.h"
#include "data/gguf_tokenizer.h"
#include "data/tokenizer_kinds.h"
#include "data/vocabulary.h"
#include "io/file.h"
#include "io/json_text.h"
#include "wavroute/error.h"
#include "wavroute/tokenizer.h"

namespace wavroute {
namespace {

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
  result.bos = vocabulary.text_of(vocabulary.bos);
  if (vocab_size > 2) result.eos = vocabulary.text_of(2);
  return result;
}

ForeignTokenizer read_tokenizer_file(const std::filesystem::path& path, int64_t vocab_size) {
  if (path.extension() == ".bin") return read_llama2c_tokenizer(path, vocab_size);
  ForeignTokenizer result;
  if (std::filesystem::is_directory(path)) {
    result = read_hf_tokenizer(path);
    if (result.json.empty()) result.json = load_tokenizer(path)->to_json();  // of two files
    return result;
  }
  if (is_gguf(path)) {
    const GgufTokenizer own = read_gguf_tokenizer(GgufFile(path), vocab_size);
    if (own.json.empty()) throw_no_tokenizer(path);
    return {own.json, own.ends.chat_template, own.bos, own.eos};
  }
  result.json = read_file(path, kTokenizerLimits.bytes);
  const nlohmann::json json = parse_json(result.json, printable(path.string()), kTokenizerLimits);
  if (!json.is_object() || !json.contains("model")) {
    throw expected("a tokenizer.json, a GGUF or llama2.c's tokenizer.bin", json_excerpt(json),
                   fmt::format("in {}", printable(path.string())));
  }
  return result;
}

}  // namespace wavroute
