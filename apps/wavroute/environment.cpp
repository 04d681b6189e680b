#include "environment.h"

#include <ATen/Version.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/build_info.h"
#include "io/file.h"
#include "io/json_text.h"
#include "io/run_folder.h"
#include "kernels/kernels.h"
#include "wavroute/error.h"

namespace wavroute::app {
namespace {

using Json = nlohmann::ordered_json;

// Keys whose change may change the last bits of results.
constexpr std::array kDecisive = {"wavroute", "commit",    "torch",  "torch_isa",
                                  "compiler", "cpu",       "gpus",   "kernels",
                                  "threads",  "processes", "device", "variables"};

// Variables that control the libraries under libtorch.
constexpr std::array kVariables = {"WAVROUTE_ISA", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA",
                                   "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS"};

Json variables() {
  Json set = Json::object();
  for (const char* name : kVariables) {
    if (const char* value = std::getenv(name)) set[name] = value;
  }
  return set;
}

std::string kernels_of(const TrainConfig& train) {
  if (train.kernels != KernelChoice::kFused) return std::string(to_string(train.kernels));
  return train.device == DeviceKind::kCuda ? "cuda"
                                           : kernels::to_string(kernels::chosen_kernels().isa);
}

Json environment(const Session& session, int processes) {
  const BuildInfo& build = build_info();
  const TrainConfig& train = session.config.train;
  return {{"format", kRunFormat},
          {"wavroute", build.version},
          {"commit", build.commit},
          {"torch", build.torch_version},
          {"torch_isa", at::get_cpu_capability()},
          {"compiler", build.compiler},
          {"cpu", session.machine.cpu_model},
          {"isa", session.machine.instruction_sets},
          {"gpus", session.machine.gpus},
          {"cores", session.machine.cores},
          {"kernels", kernels_of(train)},
          {"threads", train.threads},
          {"processes", processes},
          {"memory_bytes", session.machine.memory_total},
          {"device", to_string(train.device)},
          {"precision", to_string(train.precision)},
          {"variables", variables()},
          {"corpus", session.corpus.description},
          {"train_sha256", session.corpus.train_sha256},
          {"valid_sha256", session.corpus.valid_sha256}};
}

std::string plain(const nlohmann::json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_array() && value.empty()) return "none";
  return json_excerpt(value);
}

// "threads 2 before and 1 now"; a key that an older version didn't write is skipped.
std::vector<std::string> differences(const nlohmann::json& before, const nlohmann::json& now) {
  std::vector<std::string> words;
  for (const char* key : kDecisive) {
    if (!before.contains(key) || before.at(key) == now.at(key)) continue;
    words.push_back(
        fmt::format("{} {} before and {} now", key, plain(before.at(key)), plain(now.at(key))));
  }
  return words;
}

// The content of env.json; an empty object if it is missing or damaged.
nlohmann::json recorded(const std::filesystem::path& file) {
  std::error_code error;
  if (!std::filesystem::exists(file, error)) return nlohmann::json::object();
  try {
    nlohmann::json document = read_json(file);
    if (document.is_object()) return document;
  } catch (const UserError&) {
    // Rewritten: the run needs nothing from it.
  }
  return nlohmann::json::object();
}

std::string text_of(const nlohmann::json& document, const char* key) {
  const auto found = document.find(key);
  return found != document.end() && found->is_string() ? found->get<std::string>() : std::string();
}

}  // namespace

std::optional<std::string> record_environment(const std::filesystem::path& file,
                                              const Session& session, int64_t step, int processes) {
  const Json ordered = environment(session, processes);
  nlohmann::json document = recorded(file);
  if (step == 0 || document.empty()) {
    write_file_atomic(file, ordered.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
    return std::nullopt;
  }
  const nlohmann::json now = ordered;
  nlohmann::json& resumed = document["resumed"];
  if (!resumed.is_array()) resumed = nlohmann::json::array();
  const bool again = !resumed.empty() && resumed.back().is_object();
  nlohmann::json last = again ? resumed.back() : document;
  last.erase(again ? "step" : "resumed");
  if (last == now) return std::nullopt;
  resumed.push_back(now);
  resumed.back()["step"] = step;
  write_file_atomic(file, document.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
  const std::vector<std::string> words = differences(last, now);
  if (words.empty()) return std::nullopt;
  return fmt::format(
      "the run continues in another environment: {}: the results may differ in the "
      "last bits",
      fmt::join(words, "; "));
}

std::optional<TextDigests> recorded_text(const std::filesystem::path& file) {
  const nlohmann::json document = recorded(file);
  const TextDigests digests{text_of(document, "train_sha256"), text_of(document, "valid_sha256")};
  return digests.train.empty() ? std::nullopt : std::optional(digests);
}

}  // namespace wavroute::app
