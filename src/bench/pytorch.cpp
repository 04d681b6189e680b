#include "bench/pytorch.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <type_traits>
#include <variant>

#include "bench/worker.h"
#include "io/python.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::seconds kAnswerTimeout{30};
constexpr std::chrono::seconds kImportTimeout{120};  // of torch, on a busy machine

// Does not import torch, which would take seconds.
constexpr const char* kQuestion = R"(
import importlib.metadata, json, platform
try:
    torch = importlib.metadata.version("torch")
except importlib.metadata.PackageNotFoundError:
    torch = ""
print(json.dumps({"python": platform.python_version(), "torch": torch}))
)";

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// "partial_details", true: "--partial-details".
std::string flag(std::string name, const OptionValue& value) {
  std::ranges::replace(name, '_', '-');
  return std::visit(
      [&](const auto& plain) -> std::string {
        using Kind = std::decay_t<decltype(plain)>;
        if constexpr (std::is_same_v<Kind, bool>) {
          return fmt::format("--{}{}", plain ? "" : "no-", name);
        } else if constexpr (std::is_arithmetic_v<Kind> || std::is_same_v<Kind, std::string>) {
          return fmt::format("--{}={}", name, plain);
        } else {
          return fmt::format("--{}={}", name, fmt::join(plain, ","));
        }
      },
      value);
}

}  // namespace

std::string PyTorch::missing() const {
  if (python_version.empty()) return fmt::format("'{}' is not a Python that runs", python);
  if (torch_version.empty()) return fmt::format("'{}' has no torch", python);
  if (!fs::is_regular_file(script)) {
    return fmt::format("there is no '{}'", script.empty() ? "bench/baseline.py" : script.string());
  }
  return {};
}

PyTorch find_pytorch(const fs::path& executable) {
  const fs::path root = executable.parent_path().parent_path().parent_path();
  PyTorch found;
  found.python = find_python(executable);
  found.script = environment("WAVROUTE_BASELINE");
  if (found.script.empty()) found.script = root / "bench/baseline.py";
  try {
    Worker worker({"python", {found.python, "-c", kQuestion}, {}});
    const auto answer = worker.receive(kAnswerTimeout, "the versions of Python and torch");
    found.python_version = answer.value("python", "");
    found.torch_version = answer.value("torch", "");
  } catch (const Failure&) {  // missing() reports it
  }
  return found;
}

std::string BaselineSupport::missing(const Config& config) const {
  const auto scheme = schemes.find(config.residual.scheme);
  if (scheme == schemes.end()) return "it has no PyTorch baseline";
  if (config.model.head_dim > 0) return "the baseline has no head_dim";
  if (config.model.attention_bias) return "the baseline has no biases";
  if (config.model.tie_embeddings) return "the baseline has no tied embeddings";
  for (const auto& [name, value] : config.residual.options) {
    if (std::ranges::find(scheme->second.options, name) == scheme->second.options.end()) {
      return fmt::format("the baseline has no option '{}'", name);
    }
  }
  return {};
}

BaselineSupport ask_baseline(const PyTorch& pytorch) {
  Worker worker({"baseline", {pytorch.python, pytorch.script.string(), "--supports"}, {}});
  const auto answer = worker.receive(kImportTimeout, "the schemes that it supports");
  BaselineSupport support;
  try {
    for (const auto& [scheme, entry] : answer.at("supports").items()) {
      support.schemes[scheme] = {entry.at("options").get<std::vector<std::string>>(),
                                 entry.at("sources_per_block").get<int64_t>()};
    }
  } catch (const nlohmann::json::exception&) {
    throw Failure(expectation("'options' and 'sources_per_block' of each scheme under 'supports'",
                              answer.dump().substr(0, 200), "by the baseline"),
                  fmt::format("see what {} --supports prints", pytorch.script.string()));
  }
  return support;
}

std::vector<std::string> baseline_flags(const Options& options) {
  std::vector<std::string> flags;
  for (const auto& [name, value] : options) {
    if (value != OptionValue(std::string("auto"))) flags.push_back(flag(name, value));
  }
  return flags;
}

}  // namespace wavroute
