#include "agreement.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/build_info.h"
#include "config/names.h"
#include "config/print.h"
#include "wavroute/error.h"

namespace wavroute::app {
namespace {

using Json = nlohmann::ordered_json;

// Machines may have them in other places, or other numbers of cores.
constexpr std::array kMayDiffer = {"data.train", "data.valid", "data.tokenizer", "train.init",
                                   "train.threads"};

// "optimizer.lr is 0.001 in rank 0 and 0.002 in ranks 1, 3"
std::string difference(const std::string& key, const std::vector<Json>& facts) {
  std::vector<std::pair<std::string, std::vector<int>>> values;
  for (int rank = 0; rank < std::ssize(facts); ++rank) {
    const Json& all = facts[static_cast<size_t>(rank)];
    const std::string value = all.contains(key) ? all.at(key).get<std::string>() : "not given";
    const auto found =
        std::ranges::find(values, value, [](const auto& pair) { return pair.first; });
    if (found != values.end()) {
      found->second.push_back(rank);
    } else {
      values.push_back({value, {rank}});
    }
  }
  std::vector<std::string> words;
  words.reserve(values.size());
  for (const auto& [value, ranks] : values) {
    words.push_back(
        fmt::format("{} in rank{} {}", value, ranks.size() > 1 ? "s" : "", fmt::join(ranks, ", ")));
  }
  return values.size() < 2 ? std::string()
                           : fmt::format("{} is {}", key, fmt::join(words, " and "));
}

// Every process gives facts as an object of texts; where they differ, all processes end.
void check_same(Processes& processes, const Json& facts, const std::string& expected_words,
                const std::string& hint) {
  if (processes.size() == 1) return;
  std::vector<Json> all;
  std::vector<std::string> keys;
  for (const std::string& text :
       processes.exchange(facts.dump(-1, ' ', false, Json::error_handler_t::replace))) {
    all.push_back(Json::parse(text));
    for (const auto& [key, value] : all.back().items()) {
      if (std::ranges::find(keys, key) == keys.end()) keys.push_back(key);
    }
  }
  std::vector<std::string> differences;
  for (const std::string& key : keys) {
    if (std::string words = difference(key, all); !words.empty()) {
      differences.push_back(std::move(words));
    }
  }
  if (differences.empty()) return;
  in_first(processes, [&] {
    throw expected(expected_words, fmt::format("others: {}", fmt::join(differences, "; ")), {},
                   hint);
  });
}

}  // namespace

void check_same_start(Processes& processes, const Config& config, const Facts& facts) {
  Json all = {{"wavroute", fmt::format("{} ({})", build_info().version, build_info().commit)}};
  for (const auto& [name, value] : facts) all[name] = value;
  for (const Setting& setting : settings(config)) {
    const std::string key =
        setting.section.empty() ? setting.key : setting.section + "." + setting.key;
    if (std::ranges::find(kMayDiffer, key) == kMayDiffer.end()) all[key] = setting.value;
  }
  check_same(processes, all, "one configuration and one wavroute in all processes",
             "start every process with the same file, --set and installation");
}

void check_same_text(Processes& processes, const Session& session) {
  const Corpus& corpus = session.corpus;
  check_same(
      processes,
      {{"the training text", "sha256 " + corpus.train_sha256},
       {"the validation text", "sha256 " + corpus.valid_sha256},
       {"the tokenizer", fmt::format("{} ({} tokens, {})", corpus.tokenizer->name(),
                                     corpus.tokenizer->vocab_size(), corpus.tokenizer->hash())}},
      "one text in all processes", "copy the text of data.train to every machine");
}

Config with_same_machine(Processes& processes, const Config& config, const Machine& machine) {
  if (processes.size() == 1) return config;
  std::string chosen;
  in_first(processes, [&] {
    const TrainConfig train = resolve_machine(config, machine).train;
    chosen = Json{{"device", to_string(*train.device)},
                  {"precision", to_string(*train.precision)},
                  {"kernels", to_string(train.kernels)}}
                 .dump();
  });
  const Json words = Json::parse(processes.exchange(chosen).front());
  Config same = config;
  same.train.device = find_choice<DeviceKind>(words.at("device").get<std::string>());
  same.train.precision = find_choice<Precision>(words.at("precision").get<std::string>());
  same.train.kernels = *find_choice<KernelChoice>(words.at("kernels").get<std::string>());
  return same;
}

int64_t common_micro_batch(Processes& processes, int64_t micro_batch) {
  for (const std::string& text : processes.exchange(std::to_string(micro_batch))) {
    micro_batch = std::min<int64_t>(micro_batch, std::stoll(text));
  }
  return micro_batch;
}

}  // namespace wavroute::app
