#include "data/manifest.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/printable.h"
#include "io/file.h"
#include "io/json_text.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using Json = nlohmann::ordered_json;

constexpr JsonLimits kLimits = {.bytes = size_t{256} << 20, .values = size_t{16} << 20};
constexpr const char* kHint = "the file is damaged: prepare the text again in another folder";

// Reads the members of an object; `where` names the file in errors.
class Reader {
 public:
  Reader(const nlohmann::json& object, std::string where)
      : object_(object), where_(std::move(where)) {
    if (!object.is_object()) fail("an object", object);
  }

  [[nodiscard]] const nlohmann::json& at(const char* key) const {
    const auto found = object_.find(key);
    if (found == object_.end()) {
      throw expected(fmt::format("'{}'", key), "none", fmt::format("in {}", where_), kHint);
    }
    return *found;
  }
  [[nodiscard]] std::string text(const char* key) const {
    const auto& value = at(key);
    if (!value.is_string()) fail(fmt::format("a string as '{}'", key), value);
    return value.get<std::string>();
  }
  // At least 0.
  [[nodiscard]] int64_t count(const char* key) const {
    const auto number = json_integer(at(key));
    // Sums of any number of files stay within 64 bits.
    if (!number || *number < 0 || *number > (int64_t{1} << 52)) {
      fail(fmt::format("a count as '{}'", key), at(key));
    }
    return *number;
  }
  // At least 0, of 63 bits.
  [[nodiscard]] int64_t seed(const char* key) const {
    const auto number = json_integer(at(key));
    if (!number || *number < 0) fail(fmt::format("a seed of at least 0 as '{}'", key), at(key));
    return *number;
  }
  [[nodiscard]] bool flag(const char* key) const {
    const auto& value = at(key);
    if (!value.is_boolean()) fail(fmt::format("true or false as '{}'", key), value);
    return value.get<bool>();
  }
  [[nodiscard]] std::string digest(const char* key) const {
    std::string hex = text(key);
    const bool is_digest = hex.size() == 64 && std::ranges::all_of(hex, [](char c) {
                             return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
                           });
    if (!is_digest) fail(fmt::format("a sha256 as '{}'", key), at(key));
    return hex;
  }
  [[nodiscard]] const nlohmann::json& list(const char* key) const {
    const auto& value = at(key);
    if (!value.is_array()) fail(fmt::format("a list as '{}'", key), value);
    return value;
  }
  [[noreturn]] void fail(const std::string& what, const nlohmann::json& given) const {
    throw expected(what, json_excerpt(given), fmt::format("in {}", where_), kHint);
  }

 private:
  const nlohmann::json& object_;
  std::string where_;
};

Json to_json(const TextCounts& counts) {
  return {{"documents", counts.documents}, {"bytes", counts.bytes}, {"tokens", counts.tokens}};
}

TextCounts counts_of(const Reader& reader) {
  return {reader.count("documents"), reader.count("bytes"), reader.count("tokens")};
}

SplitName split_of(const Reader& reader) {
  const std::string word = reader.text("split");
  for (size_t i = 0; i < kSplits; ++i) {
    if (to_string(static_cast<SplitName>(i)) == word) return static_cast<SplitName>(i);
  }
  reader.fail("train, valid or test as 'split'", reader.at("split"));
}

ManifestFile file_of(const Reader& reader) {
  ManifestFile file{reader.text("name"), split_of(reader), counts_of(reader),
                    reader.digest("sha256")};
  const std::string prefix = std::string(to_string(file.split)) + "_";
  std::string_view number = file.name;
  const bool is_named = number.starts_with(prefix) && number.ends_with(".bin");
  if (is_named) number = number.substr(prefix.size(), number.size() - prefix.size() - 4);
  if (!is_named || number.empty() ||
      number.find_first_not_of("0123456789") != std::string_view::npos) {
    reader.fail(fmt::format("a name like {}0000.bin", prefix), reader.at("name"));
  }
  return file;
}

}  // namespace

TextCounts& TextCounts::operator+=(const TextCounts& other) noexcept {
  documents += other.documents;
  bytes += other.bytes;
  tokens += other.tokens;
  return *this;
}

TextCounts Manifest::total() const {
  TextCounts sum;
  for (const ManifestFile& file : files) sum += file.counts;
  return sum;
}

TextCounts Manifest::total(SplitName split) const {
  TextCounts sum;
  for (const ManifestFile& file : files) {
    if (file.split == split) sum += file.counts;
  }
  return sum;
}

Json to_json(const PrepareSettings& settings) {
  return {{"recipe", settings.recipe}, {"field", settings.field}, {"separator", settings.separator},
          {"valid", settings.valid},   {"seed", settings.seed},   {"dedup", settings.dedup}};
}

PrepareSettings settings_from_json(const nlohmann::json& json, const std::string& where) {
  const Reader reader(json, where);
  const auto& valid = reader.at("valid");
  if (!valid.is_number()) reader.fail("a number as 'valid'", valid);
  return {reader.text("recipe"), reader.text("field"), reader.text("separator"),
          valid.get<double>(),   reader.seed("seed"),  reader.flag("dedup")};
}

Json to_json(const Manifest& manifest) {
  Json sources = Json::array(), files = Json::array(), splits = Json::object();
  for (const ManifestSource& source : manifest.sources) {
    sources.push_back({{"path", source.path},
                       {"sha256", source.sha256},
                       {"bytes", source.bytes},
                       {"documents", source.documents}});
  }
  for (const ManifestFile& file : manifest.files) {
    Json entry = {{"name", file.name}, {"split", to_string(file.split)}};
    entry.update(to_json(file.counts));
    entry["sha256"] = file.sha256;
    files.push_back(std::move(entry));
    splits[std::string(to_string(file.split))] = to_json(manifest.total(file.split));
  }
  Json tokenizer = {{"name", manifest.tokenizer.name},
                    {"vocab_size", manifest.tokenizer.vocab_size},
                    {"sha256", manifest.tokenizer.sha256},
                    {"end_token", nullptr}};
  if (manifest.tokenizer.end_token) tokenizer["end_token"] = *manifest.tokenizer.end_token;
  Json object = {{"format", kManifestFormat}};
  object.update(to_json(manifest.total()));
  object["duplicates"] = manifest.duplicates;
  object["empty"] = manifest.empty;
  object["invalid_bytes"] = manifest.invalid_bytes;
  object["splits"] = std::move(splits);
  object["tokenizer"] = std::move(tokenizer);
  object["settings"] = to_json(manifest.settings);
  object["files"] = std::move(files);
  object["sources"] = std::move(sources);
  return object;
}

Manifest manifest_from_json(const nlohmann::json& json, const std::string& where) {
  const Reader reader(json, where);
  check_format(json, kManifestFormat, "a folder of prepared text", where);
  Manifest manifest;
  manifest.settings = settings_from_json(reader.at("settings"), where);
  const Reader tokenizer(reader.at("tokenizer"), where);
  manifest.tokenizer = {tokenizer.text("name"), tokenizer.count("vocab_size"),
                        tokenizer.digest("sha256")};
  if (!tokenizer.at("end_token").is_null()) {
    manifest.tokenizer.end_token = tokenizer.count("end_token");
  }
  for (const auto& entry : reader.list("sources")) {
    const Reader source(entry, where);
    manifest.sources.push_back({source.text("path"), source.digest("sha256"), source.count("bytes"),
                                source.count("documents")});
  }
  for (const auto& entry : reader.list("files")) {
    manifest.files.push_back(file_of(Reader(entry, where)));
  }
  manifest.duplicates = reader.count("duplicates");
  manifest.empty = reader.count("empty");
  manifest.invalid_bytes = reader.count("invalid_bytes");
  return manifest;
}

Manifest read_manifest(const std::filesystem::path& folder) {
  const auto file = folder / kManifestFile;
  if (is_there(file)) return manifest_from_json(read_json(file, kLimits), file.string());
  const bool is_begun = is_there(folder / kWorkFolder);
  throw expected(
      "a folder of prepared text", is_begun ? "one that isn't complete" : "another folder",
      fmt::format("at {}: there is no {}", folder.string(), kManifestFile),
      is_begun ? "go on with the same wavroute data prepare command and --resume auto"
               : fmt::format("make one: wavroute data prepare {} --out DIR", folder.string()));
}

}  // namespace wavroute
