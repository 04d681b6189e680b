#include "data/prepare_state.h"

#include <nlohmann/json.hpp>

#include "io/file.h"
#include "io/json_text.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kStateName = "state.json";
constexpr int64_t kStateFormat = 1;
constexpr JsonLimits kLimits = {.bytes = size_t{256} << 20, .values = size_t{16} << 20};

// The manifest's own form holds most of a state.
Json written(const PrepareState& state) {
  Manifest manifest;
  manifest.settings = state.settings;
  manifest.tokenizer.sha256 = std::string(64, '0');
  manifest.sources = state.finished;
  manifest.files = state.files;
  manifest.duplicates = state.duplicates;
  manifest.empty = state.empty;
  manifest.invalid_bytes = state.invalid_bytes;
  return to_json(manifest);
}

}  // namespace

void write_prepare_state(const std::filesystem::path& folder, const PrepareState& state) {
  Json sources = Json::array();
  for (const KnownSource& source : state.sources) {
    sources.push_back({{"path", source.path}, {"bytes", source.bytes}});
  }
  const Json object = {{"format", kStateFormat},
                       {"tokenizer", state.tokenizer},
                       {"sources", std::move(sources)},
                       {"made_folder", state.made_folder},
                       {"documents", state.documents},
                       {"chain", state.chain},
                       {"spill_bytes", state.spill_bytes},
                       {"text_bytes", state.text_bytes},
                       {"text_documents", state.text_documents},
                       {"characters", state.characters},
                       {"next_shard", state.next_shard},
                       {"written", written(state)}};
  write_file_atomic(folder / kStateName, object.dump(1) + "\n");
}

std::optional<PrepareState> read_prepare_state(const std::filesystem::path& folder) {
  const auto file = folder / kStateName;
  if (!is_there(file)) return std::nullopt;
  const std::string where = file.string();
  const nlohmann::json json = read_json(file, kLimits);
  check_format(json, kStateFormat, "a preparation", where);
  try {
    PrepareState state;
    const Manifest done = manifest_from_json(json.at("written"), where);
    state.settings = done.settings;
    state.finished = done.sources;
    state.files = done.files;
    state.duplicates = done.duplicates;
    state.empty = done.empty;
    state.invalid_bytes = done.invalid_bytes;
    state.tokenizer = json.at("tokenizer").get<std::string>();
    for (const auto& source : json.at("sources")) {
      state.sources.push_back(
          {source.at("path").get<std::string>(), source.at("bytes").get<int64_t>()});
    }
    state.made_folder = json.at("made_folder").get<bool>();
    state.documents = json.at("documents").get<int64_t>();
    state.chain = json.at("chain").get<uint64_t>();
    state.spill_bytes = json.at("spill_bytes").get<uint64_t>();
    state.text_bytes = json.at("text_bytes").get<std::array<int64_t, kSplits>>();
    // One of an earlier version has none: its shards have the sizes that they had there.
    state.text_documents = json.value("text_documents", state.text_documents);
    state.characters = json.at("characters").get<std::string>();
    state.next_shard = json.at("next_shard").get<std::array<int64_t, kSplits>>();
    if (state.finished.size() <= state.sources.size()) return state;
  } catch (const nlohmann::json::exception&) {  // a key is missing or of another type
  }
  throw expected("the state of a preparation", "something else", "in " + where,
                 "remove the folder and prepare again");
}

}  // namespace wavroute
