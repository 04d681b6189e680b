#include "data/token_decoder.h"

#include <fmt/format.h>

#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/printable.h"
#include "data/byte_level.h"
#include "data/tokenizer_json.h"
#include "io/json_text.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using nlohmann::json;

constexpr int kDeepest = 8;
constexpr size_t kMostBytes = size_t{1} << 20;  // of one token
constexpr std::string_view kPart = "decoder";
constexpr std::string_view kKinds =
    "ByteLevel, Metaspace, ByteFallback, Fuse, Replace, Strip or Sequence";

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  std::string replaced;
  for (size_t at = 0;;) {
    const size_t found = text.find(from, at);
    replaced.append(text, at, found - at);
    if (found == std::string::npos) break;
    replaced += to;
    at = found + from.size();
    if (replaced.size() > kMostBytes) {
      throw expected(fmt::format("a decoder that makes at most {} bytes of a token", kMostBytes),
                     "more");
    }
  }
  text = std::move(replaced);
}

// The byte of a token like <0x0A>.
std::optional<char> named_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return std::nullopt;
  unsigned byte = 0;
  const char* const end = token.data() + 5;
  const auto [stop, error] = std::from_chars(token.data() + 3, end, byte, 16);
  if (error != std::errc() || stop != end) return std::nullopt;
  return static_cast<char>(byte);
}

}  // namespace

TokenDecoder::TokenDecoder(const json& json, const std::string& where) { add(json, where, 0); }

void TokenDecoder::add(const json& json, const std::string& where, int depth) {
  const std::string type = type_of(json, kPart, where);
  const bool is_after_whole = is_fused_ && type != "Strip" && type != "Fuse" && type != "Sequence";
  if (is_after_whole || is_byte_level_) {
    throw expected("no decoder behind what makes one text of all tokens, but Strip",
                   printable(type), fmt::format("in {}", where));
  }
  if (type == "Sequence" && depth < kDeepest) {
    for (const auto& part : list_of(json, "decoders", where)) add(part, where, depth + 1);
  } else if (type == "ByteLevel") {
    steps_.push_back({Kind::kByteLevel, {}, {}, false});
    is_byte_level_ = true;
  } else if (type == "ByteFallback") {
    steps_.push_back({Kind::kByteFallback, {}, {}, false});
  } else if (type == "Replace") {
    steps_.push_back({Kind::kReplace, string_pattern(json, "Replace decoder", where),
                      text_of(json, "content", where), false});
  } else if (type == "Metaspace") {
    add_metaspace(json, where);
  } else if (type == "Fuse") {
    is_fused_ = true;
  } else if (type == "Strip") {
    add_strip(json, where);
  } else {
    refuse_kind(kPart, kKinds, type, where);
  }
  check_steps(steps_.size(), kPart, where);
}

void TokenDecoder::add_metaspace(const json& json, const std::string& where) {
  const bool has_prefix = json.contains("prepend_scheme")
                              ? text_of(json, "prepend_scheme", where) != "never"
                              : flag_of(json, "add_prefix_space", true, where);
  Step step{Kind::kMetaspace, text_of(json, "replacement", where), " ", has_prefix};
  if (step.text.empty()) {
    throw expected("one character as the replacement of a Metaspace decoder", "none",
                   fmt::format("in {}", where));
  }
  steps_.push_back(std::move(step));
}

// One character at the beginning of the text: what Llama 2's tokenizer puts there.
void TokenDecoder::add_strip(const json& json, const std::string& where) {
  const auto count = [&](const char* key) {
    const auto found = json.find(key);
    return found == json.end() ? std::optional<int64_t>() : json_integer(*found);
  };
  const std::string content = text_of(json, "content", where);
  if (!is_fused_ || count("start") != 1 || count("stop") != 0 || content.empty()) {
    throw expected("a Strip decoder behind Fuse, with start 1 and stop 0", "another one",
                   fmt::format("in {}", where));
  }
  steps_.push_back({Kind::kStripFirst, content, {}, false});
}

bool TokenDecoder::has_first_rule() const {
  for (const Step& step : steps_) {
    if (step.drops_first || step.kind == Kind::kStripFirst) return true;
  }
  return false;
}

std::string TokenDecoder::bytes_of(std::string_view token, bool is_first) const {
  std::string text(token);
  for (const Step& step : steps_) {
    switch (step.kind) {
      case Kind::kReplace:
        replace_all(text, step.text, step.replacement);
        break;
      case Kind::kByteFallback:
        if (const auto byte = named_byte(text)) text.assign(1, *byte);
        break;
      case Kind::kMetaspace:
        replace_all(text, step.text, is_first && step.drops_first ? "" : step.replacement);
        break;
      case Kind::kByteLevel:
        if (auto bytes = bytes_of_symbols(text)) text = *std::move(bytes);
        break;
      case Kind::kStripFirst:
        if (is_first && text.starts_with(step.text)) text.erase(0, step.text.size());
        break;
    }
  }
  return text;
}

}  // namespace wavroute
