#include "wavroute/tokenizer.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "base/utf8.h"
#include "data/tokenizer_kinds.h"
#include "io/file.h"
#include "io/json_text.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

constexpr const char* kVersion = "1.0";  // of tokenizer.json, as the library `tokenizers` counts

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

}  // namespace

size_t Tokenizer::cut(std::string_view text, size_t at) const { return utf8_boundary(text, at); }

std::string Tokenizer::decode(std::span<const uint32_t> ids, bool skip_special) const {
  std::string text;
  text.reserve(ids.size());
  bool is_first = true;
  for (const uint32_t id : ids) {
    if (skip_special && is_special(id)) continue;
    text += std::exchange(is_first, false) ? first_token_bytes(id) : token_bytes(id);
  }
  return text;
}

std::string Tokenizer::hash() const {
  // Each part ends in a zero byte or has its length before it: no two vocabularies give the same
  // bytes.
  std::string content(name());
  content.push_back('\0');
  for (int64_t id = 0; id < vocab_size(); ++id) {
    const std::string_view bytes = token_bytes(static_cast<uint32_t>(id));
    content += fmt::format("{}:", bytes.size());
    content += bytes;
  }
  return sha256_hex(content);
}

std::shared_ptr<const Tokenizer> tokenizer_from_json(std::string_view text, std::string_view where,
                                                     std::string_view end_token) {
  const std::string name(where);
  const nlohmann::json json = parse_json(text, name, kTokenizerLimits);
  if (json.is_object() && json.contains("version") && json["version"] != kVersion) {
    throw expected(fmt::format("a tokenizer of version \"{}\"", kVersion),
                   json_excerpt(json["version"]), fmt::format("in {}", where),
                   "a newer version of the library `tokenizers` wrote it");
  }
  try {
    if (auto bytes = bytes_tokenizer_from_json(json)) return bytes;
    if (auto chars = chars_tokenizer_from_json(json)) return chars;
  } catch (const nlohmann::json::exception&) {  // a key is missing or of another type
  }
  if (!json.is_object() || !json.contains("model")) {
    throw expected("a tokenizer.json",
                   json.is_object() ? "an object without a model" : "other JSON",
                   fmt::format("in {}", where));
  }
  const auto& model = json["model"];
  const bool has_type = model.is_object() && model.contains("type");
  const bool has_merges = model.is_object() && model.contains("merges");
  if (has_type ? model["type"] == "BPE" : has_merges) {  // older files name no type
    return bpe_tokenizer_from_json(json, text, name, end_token);
  }
  throw expected("a tokenizer of bytes, of characters, or with a BPE model",
                 has_type ? "the model " + json_excerpt(model["type"]) : "another model",
                 fmt::format("in {}", where), "no other model is known");
}

std::string tokenizer_json_text(const nlohmann::json& pre_tokenizer, const nlohmann::json& decoder,
                                const nlohmann::json& model) {
  return tokenizer_json_text(pre_tokenizer, decoder, model, nlohmann::json::array());
}

std::string tokenizer_json_text(const nlohmann::json& pre_tokenizer, const nlohmann::json& decoder,
                                const nlohmann::json& model, const nlohmann::json& added_tokens) {
  const nlohmann::json json = {
      {"version", kVersion},          {"truncation", nullptr},     {"padding", nullptr},
      {"added_tokens", added_tokens}, {"normalizer", nullptr},     {"pre_tokenizer", pre_tokenizer},
      {"decoder", decoder},           {"post_processor", nullptr}, {"model", model},
  };
  return json.dump(1) + "\n";
}

void throw_unknown_id(uint32_t id, int64_t vocab_size) {
  throw expected(fmt::format("a token id below {}", vocab_size), id, {},
                 "the tokens and the tokenizer don't belong together");
}

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool continues)
    : tokenizer_(std::move(tokenizer)), is_first_(!continues) {}

std::string StreamDecoder::feed(uint32_t id) {
  pending_ += std::exchange(is_first_, false) ? tokenizer_->first_token_bytes(id)
                                              : tokenizer_->token_bytes(id);
  std::string text;
  size_t at = 0;
  while (at < pending_.size()) {
    const Utf8Step step = utf8_step(pending_, at);
    if (step.state == Utf8State::kTruncated) break;
    if (step.state == Utf8State::kComplete) {
      text.append(pending_, at, step.length);
    } else {
      text += kReplacement;
    }
    at += step.length;
  }
  pending_.erase(0, at);
  return text;
}

std::string StreamDecoder::finish() {
  const bool cut = !pending_.empty();
  pending_.clear();
  return std::string(cut ? kReplacement : std::string_view());
}

}  // namespace wavroute
