#include "data/file_info.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>
#include <vector>

#include "base/numbers.h"
#include "data/known_formats.h"
#include "data/llmc_file.h"
#include "data/nearest_file.h"
#include "data/prepared.h"
#include "data/source_bytes.h"
#include "data/token_file.h"
#include "io/file.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using TokenizerPointer = std::shared_ptr<const Tokenizer>;

constexpr int64_t kShownTokens = 64;

std::string_view name_of(DocumentForm form) {
  switch (form) {
    case DocumentForm::kJsonLines:
      return "json lines";
    case DocumentForm::kParquet:
      return "parquet";
    default:
      return "text";
  }
}

// The tokenizer that was named, or else lies beside a token file; null where there is none.
TokenizerPointer tokenizer_for(const fs::path& file, const std::string& named,
                               const std::string& hash) {
  if (named == "bytes") return make_bytes_tokenizer();
  if (!named.empty()) return load_tokenizer(named);
  for (const fs::path& path :
       {fs::path(file.string() + ".tokenizer.json"), file.parent_path() / "tokenizer.json"}) {
    std::error_code ignored;
    if (!fs::exists(path, ignored)) continue;
    auto found = load_tokenizer(path);
    if (hash.empty() || found->hash() == hash) return found;
  }
  auto bytes = make_bytes_tokenizer();
  return bytes->hash() == hash ? bytes : nullptr;
}

// Adds the first tokens and, with a tokenizer, what they stand for.
void add_tokens(Json& info, const TokenView& tokens, const Tokenizer* tokenizer) {
  std::vector<int64_t> ids(static_cast<size_t>(std::min(kShownTokens, tokens.size())));
  tokens.copy(0, ids);
  info["ids"] = ids;
  if (tokenizer == nullptr) return;
  std::vector<uint32_t> plain(ids.begin(), ids.end());
  info["text"] = tokenizer->decode(plain);
}

Json prepared_info(const std::string& path) {
  const PreparedText text = open_prepared(path);
  Json info = {{"path", path}, {"kind", "prepared"}};
  info.update(to_json(text.manifest));
  const PreparedSplit train = open_prepared_split(text, SplitName::kTrain);
  add_tokens(info, train.tokens, text.tokenizer.get());
  return info;
}

void add_tokenizer(Json& info, const std::string& hash, const Tokenizer* tokenizer) {
  if (!hash.empty()) info["tokenizer_sha256"] = hash;
  if (tokenizer == nullptr) return;
  info["tokenizer"] = tokenizer->name();
  info["vocab_size"] = tokenizer->vocab_size();
}

Json token_info(const std::string& path, const FileInfoOptions& options) {
  const TokenFileInfo file = read_token_file_info(path);
  const auto tokenizer = tokenizer_for(path, options.tokenizer, file.tokenizer);
  Json info = {{"path", path},
               {"kind", "tokens"},
               {"version", file.version},
               {"width", file.width * 8},
               {"tokens", file.tokens}};
  add_tokenizer(info, file.tokenizer, tokenizer.get());
  if (!file.text.empty()) info["text_sha256"] = file.text;
  if (tokenizer != nullptr) {
    add_tokens(info, open_token_file(path, *tokenizer), tokenizer.get());
  } else {
    constexpr int64_t kHeader = 64;
    const auto mapped = std::make_shared<const MappedFile>(path);
    const auto ids =
        mapped->bytes().subspan(kHeader, static_cast<size_t>(file.tokens * file.width));
    add_tokens(info, TokenView(mapped, ids, file.width, INT64_MAX, path), nullptr);
  }
  return info;
}

Json llmc_info(const std::string& path, const LlmcHeader& header, const FileInfoOptions& options) {
  const auto mapped = std::make_shared<const MappedFile>(path);
  const auto tokenizer = tokenizer_for(path, options.tokenizer, {});
  const int64_t vocabulary = tokenizer ? tokenizer->vocab_size() : INT64_MAX;
  const TokenView tokens(mapped, mapped->bytes().subspan(kLlmcHeaderBytes), header.width,
                         vocabulary, path);
  Json info = {{"path", path},
               {"kind", "llm.c"},
               {"version", header.version},
               {"width", header.width * 8},
               {"tokens", header.tokens}};
  add_tokenizer(info, {}, tokenizer.get());
  add_tokens(info, tokens, tokenizer.get());
  return info;
}

Json text_info(const std::string& path, const FileInfoOptions& options) {
  const std::vector<SourceFile> sources = list_sources({path}, options.sources);
  const SourceFile& source = sources.front();
  int64_t documents = 0, empty = 0, bytes = 0, invalid = 0;
  SourceReader reader(source, options.python);
  const auto summary = reader.read([&](const SourceDocument& document, auto /*split*/) {
    const bool is_blank = document.text.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos;
    ++(is_blank ? empty : documents);
    if (!is_blank) bytes += std::ssize(document.text);
    invalid += static_cast<int64_t>(count_invalid_bytes(document.text));
    return true;
  });
  const bool is_packable = source.format.form != DocumentForm::kParquet;
  return {{"path", path},
          {"kind", name_of(source.format.form)},
          {"packing", is_packable ? SourceBytes(path).packing() : ""},
          {"documents", documents},
          {"bytes", bytes},
          {"empty", empty},
          {"invalid_bytes", invalid + static_cast<int64_t>(summary->replaced_bytes)},
          {"stored_bytes", summary->stored_bytes},
          {"sha256", summary->sha256}};
}

// Only a file of tokens leaves open what its tokens stand for.
void refuse_tokenizer(const std::string& path, const FileInfoOptions& options) {
  if (options.tokenizer.empty()) return;
  throw expected("a file of tokens for --tokenizer", "another", fmt::format("at {}", path),
                 "a prepared folder has its own tokenizer; wavroute data prepare makes tokens of a "
                 "text");
}

// A value as a line shows it; the long ones are left to --json.
std::string shown(const Json& value) {
  if (value.is_number_integer()) return format_count(value.get<double>());
  if (value.is_string()) return value.get<std::string>();
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

Json file_info(const std::string& path, const FileInfoOptions& options) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) {
    refuse_tokenizer(path, options);
    return prepared_info(path);
  }
  if (!fs::exists(path, ignored)) {
    throw expected("a file or folder of data", fmt::format("no {}", path), {},
                   nearest_beside(path));
  }
  {
    const MappedFile mapped(path);
    if (has_token_magic(mapped.bytes())) return token_info(path, options);
    if (const auto llmc = find_llmc_header(mapped.text(), path)) {
      return llmc_info(path, *llmc, options);
    }
  }
  refuse_tokenizer(path, options);
  return text_info(path, options);
}

std::string file_info_text(const Json& info) {
  std::string text;
  for (const auto& [key, value] : info.items()) {
    if (key == "files" || key == "sources") {
      text += fmt::format("{:<16} {}\n", key, value.size());
    } else if (value.is_object()) {
      std::string parts;
      for (const auto& [name, part] : value.items()) {
        parts += fmt::format("{}{} {}", parts.empty() ? "" : ", ", name, shown(part));
      }
      text += fmt::format("{:<16} {}\n", key, parts);
    } else if (key == "ids" && value.size() > 12) {
      std::vector<int64_t> first = value.get<std::vector<int64_t>>();
      first.resize(12);
      text += fmt::format("{:<16} {} ...\n", key, fmt::join(first, " "));
    } else if (key == "text") {
      text += fmt::format("{:<16} {}\n", key,
                          value.dump(-1, ' ', false, Json::error_handler_t::replace));
    } else {
      text += fmt::format("{:<16} {}\n", key, shown(value));
    }
  }
  return text;
}

}  // namespace wavroute
