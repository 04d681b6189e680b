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

// A vocabulary of a quarter of a million tokens with as many merges, each a list of two, fits.
constexpr JsonLimits kLimits = {.bytes = size_t{64} << 20, .values = size_t{8} << 20};

constexpr const char* kVersion = "1.0";  // of tokenizer.json, as the library `tokenizers` counts

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

}  // namespace

std::string Tokenizer::decode(std::span<const uint32_t> ids) const {
  std::string text;
  text.reserve(ids.size());
  for (const uint32_t id : ids) text += token_bytes(id);
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

std::shared_ptr<const Tokenizer> tokenizer_from_json(std::string_view text,
                                                     std::string_view where) {
  const nlohmann::json json = parse_json(text, std::string(where), kLimits);
  if (json.is_object() && json.contains("version") && json["version"] != kVersion) {
    throw expected(fmt::format("a tokenizer of version \"{}\"", kVersion),
                   json_excerpt(json["version"]), fmt::format("in {}", where),
                   "only tokenizers that wavroute wrote can be read");
  }
  try {
    if (auto bytes = bytes_tokenizer_from_json(json)) return bytes;
    if (auto chars = chars_tokenizer_from_json(json)) return chars;
  } catch (const nlohmann::json::exception&) {  // a key is missing or of another type
  }
  throw expected("a tokenizer of bytes or of characters", "another kind",
                 fmt::format("in {}", where), "only tokenizers that wavroute wrote can be read");
}

std::shared_ptr<const Tokenizer> load_tokenizer(const std::filesystem::path& path) {
  return tokenizer_from_json(read_file(path, kLimits.bytes), path.string());
}

std::string tokenizer_json_text(const nlohmann::json& pre_tokenizer, const nlohmann::json& decoder,
                                const nlohmann::json& model) {
  const nlohmann::json json = {
      {"version", kVersion},   {"truncation", nullptr},
      {"padding", nullptr},    {"added_tokens", nlohmann::json::array()},
      {"normalizer", nullptr}, {"pre_tokenizer", pre_tokenizer},
      {"decoder", decoder},    {"post_processor", nullptr},
      {"model", model},
  };
  return json.dump(1) + "\n";
}

void throw_unknown_id(uint32_t id, int64_t vocab_size) {
  throw expected(fmt::format("a token id below {}", vocab_size), id, {},
                 "the tokens and the tokenizer don't belong together");
}

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer)
    : tokenizer_(std::move(tokenizer)) {}

std::string StreamDecoder::feed(uint32_t id) {
  pending_ += tokenizer_->token_bytes(id);
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
