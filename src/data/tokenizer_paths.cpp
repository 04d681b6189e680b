// The files in which tokenizers lie.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "base/lines.h"
#include "data/byte_pair_json.h"
#include "data/gguf_tokenizer.h"
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

fs::path folder_of(const fs::path& file) {
  return file.has_parent_path() ? file.parent_path() : fs::path(".");
}

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
  return tokenizer_from_json(read_file(path, kTokenizerLimits.bytes), path.string(),
                             configured_end(folder_of(path)));
}

std::shared_ptr<const Tokenizer> read_gguf(const fs::path& path) {
  const GgufTokenizer tokenizer = read_gguf_tokenizer(GgufFile(path));
  if (tokenizer.json.empty()) throw_no_tokenizer(path);
  return tokenizer_from_json(tokenizer.json, path.string(), tokenizer.eos);
}

}  // namespace

std::string byte_level_json(json vocab, json merges, const json& added_tokens) {
  const json part = byte_level_part<json>(/*trim_offsets=*/true, /*use_regex=*/true);
  return tokenizer_json_text(part, part, byte_pair_model(std::move(vocab), std::move(merges)),
                             added_tokens);
}

std::shared_ptr<const Tokenizer> load_tokenizer(const fs::path& path) {
  std::error_code ignored;
  const bool is_folder = fs::is_directory(path, ignored);
  const fs::path folder = is_folder ? path : folder_of(path);
  if (is_folder && is_there(path / "tokenizer.json")) {
    return read_tokenizer_json(path / "tokenizer.json");
  }
  constexpr const char* kPairs[][2] = {{"encoder.json", "vocab.bpe"}, {"vocab.json", "merges.txt"}};
  for (const auto& [vocab, merges] : kPairs) {
    const bool is_meant = is_folder || path.filename() == vocab || path.filename() == merges;
    if (!is_meant || !is_there(folder / vocab) || !is_there(folder / merges)) continue;
    return tokenizer_from_json(gpt2_json(folder / vocab, folder / merges),
                               (folder / vocab).string(), configured_end(folder));
  }
  if (!is_folder) return is_gguf(path) ? read_gguf(path) : read_tokenizer_json(path);
  throw expected(
      "a folder with tokenizer.json, with encoder.json and vocab.bpe, or with vocab.json and "
      "merges.txt",
      "none of these", fmt::format("in {}", path.string()));
}

}  // namespace wavroute
