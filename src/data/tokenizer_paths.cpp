// The files in which tokenizers lie.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "base/lines.h"
#include "data/byte_pair_json.h"
#include "data/tokenizer_kinds.h"
#include "io/companions.h"
#include "io/file.h"
#include "io/json_text.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kGpt2End = "<|endoftext|>";

// The eos_token of a tokenizer_config.json: a string, or an object that holds it. Empty where
// there is no such file or key.
std::string configured_end(const fs::path& folder) {
  const fs::path path = folder / kTokenizerConfigFile;
  if (!is_there(path)) return {};
  const json config = read_json(path);
  if (!config.is_object() || !config.contains("eos_token")) return {};
  const json& end = config["eos_token"];
  const json& content = end.is_object() && end.contains("content") ? end["content"] : end;
  if (content.is_null()) return {};
  if (content.is_string()) return content.get<std::string>();
  throw expected("a token as eos_token", json_excerpt(content),
                 fmt::format("in {}", path.string()));
}

// GPT-2's rules around a vocabulary and merges: a line each, of two tokens.
std::string gpt2_json(const fs::path& vocab_path, const fs::path& merges_path) {
  json vocab = read_json(vocab_path, kTokenizerLimits);
  json merges = json::array();
  const std::string text = read_file(merges_path, kTokenizerLimits.bytes);
  for (const std::string_view line : lines_of(text)) {
    if (!line.empty() && !line.starts_with("#version")) merges.push_back(line);
  }
  json added = json::array();
  if (vocab.is_object() && vocab.contains(kGpt2End)) {
    added.push_back(added_token<json>(vocab[kGpt2End], kGpt2End, /*special=*/true));
  }
  return byte_level_json(std::move(vocab), std::move(merges), added);
}

std::shared_ptr<const Tokenizer> read_tokenizer_json(const fs::path& path) {
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  return tokenizer_from_json(read_file(path, kTokenizerLimits.bytes), path.string(),
                             configured_end(folder));
}

}  // namespace

std::string byte_level_json(json vocab, json merges, const json& added_tokens) {
  const json part = byte_level_part<json>(/*trim_offsets=*/true, /*use_regex=*/true);
  return tokenizer_json_text(part, part, byte_pair_model(std::move(vocab), std::move(merges)),
                             added_tokens);
}

std::shared_ptr<const Tokenizer> load_tokenizer(const fs::path& path) {
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) return read_tokenizer_json(path);
  if (is_there(path / "tokenizer.json")) return read_tokenizer_json(path / "tokenizer.json");
  constexpr const char* kPairs[][2] = {{"encoder.json", "vocab.bpe"}, {"vocab.json", "merges.txt"}};
  for (const auto& [vocab, merges] : kPairs) {
    if (!is_there(path / vocab) || !is_there(path / merges)) continue;
    return tokenizer_from_json(gpt2_json(path / vocab, path / merges), (path / vocab).string(),
                               configured_end(path));
  }
  throw expected(
      "a folder with tokenizer.json, with encoder.json and vocab.bpe, or with vocab.json and "
      "merges.txt",
      "none of these", fmt::format("in {}", path.string()));
}

}  // namespace wavroute
