#include "bench/pytorch.h"

#include <fmt/format.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "bench/worker.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::seconds kAnswerTimeout{30};

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

}  // namespace

std::string PyTorch::missing() const {
  if (python_version.empty()) return fmt::format("'{}' is no Python that runs", python);
  if (torch_version.empty()) return fmt::format("'{}' has no torch", python);
  if (!fs::is_regular_file(script)) {
    return fmt::format("there is no '{}'", script.empty() ? "bench/baseline.py" : script.string());
  }
  return {};
}

PyTorch find_pytorch(const fs::path& executable) {
  const fs::path root = executable.parent_path().parent_path().parent_path();
  PyTorch found;
  found.python = environment("WAVROUTE_PYTHON");
  if (found.python.empty()) {
    const auto own = root / ".venv/bin/python";
    found.python = fs::exists(own) ? own.string() : "python3";
  }
  found.script = environment("WAVROUTE_BASELINE");
  if (found.script.empty()) found.script = root / "bench/baseline.py";
  try {
    Worker worker({"python", {found.python, "-c", kQuestion}, {}});
    const auto answer = worker.receive(kAnswerTimeout, "the versions of Python and torch");
    found.python_version = answer.value("python", "");
    found.torch_version = answer.value("torch", "");
  } catch (const Failure&) {  // missing() says so
  }
  return found;
}

}  // namespace wavroute
