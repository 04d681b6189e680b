// `wavroute doctor`: what this program, this machine and its PyTorch are, on one screen.
#include <ATen/Context.h>
#include <ATen/Version.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/build_info.h"
#include "base/machine.h"
#include "base/output.h"
#include "base/threads.h"
#include "bench/pytorch.h"
#include "command.h"
#include "common.h"
#include "data/token_cache.h"
#include "kernels/kernels.h"
#include "model/device.h"
#include "train/session.h"
#include "waiting.h"

namespace wavroute::app {
namespace {

nlohmann::ordered_json examine() {
  const auto build = build_info();
  const auto machine = probe_machine();
  const auto pytorch = find_pytorch(own_path());
  const size_t gpus = at::hasCUDA() ? at::getNumGPUs() : 0;
  nlohmann::ordered_json found;
  found["wavroute"] = build.version;
  found["commit"] = build.commit;
  found["compiler"] = build.compiler;
  found["build_type"] = build.build_type;
  found["torch"] = build.torch_version;
  found["torch_folder"] = build.torch_folder;
  found["torch_cpu_capability"] = at::get_cpu_capability();
  found["cpu"] = machine.cpu_model;
  found["instruction_sets"] = machine.instruction_sets;
  found["kernels"] = kernels::to_string(kernels::chosen_kernels().isa);
  found["usable_kernels"] = nlohmann::ordered_json::array();
  for (const kernels::Kernels& usable : kernels::usable_kernels()) {
    found["usable_kernels"].push_back(kernels::to_string(usable.isa));
  }
  found["cores"] = machine.cores;
  found["threads"] = threads_to_use(0, machine);
  const OpenMpWaiting waiting = openmp_waiting();
  found["openmp_waiting"] = waiting.setting;
  found["openmp_waiting_is_ours"] = waiting.is_ours;
  found["precision_auto"] = to_string(resolve_machine(Config{}, machine).train.precision);
  found["gpus"] = gpus;
  found["gpu_names"] = machine.gpus;
  found["gpu_kernels_missing"] = why_no_gpu_kernels();
  found["memory_total"] = machine.memory_total;
  found["memory_available"] = machine.memory_available;
  found["cache_folder"] = cache_folder().string();
  found["python"] = pytorch.python;
  found["python_version"] = pytorch.python_version;
  found["python_torch"] = pytorch.torch_version;
  found["baseline"] = pytorch.missing().empty() ? pytorch.script.string() : "";
  found["baseline_missing"] = pytorch.missing();
  return found;
}

std::string gibibytes(const nlohmann::ordered_json& bytes) {
  return fmt::format("{:.1f} GiB", bytes.get<double>() / 1073741824.0);
}

std::string screen(const nlohmann::ordered_json& f) {
  const auto text = [&](const char* key) { return f.at(key).get<std::string>(); };
  std::string out;
  const auto line = [&](const char* name, const std::string& value) {
    out += fmt::format("{:<13} {}\n", name, value);
  };
  line("wavroute", fmt::format("{}, commit {}, {}, compiled by {}", text("wavroute"),
                               text("commit"), text("build_type"), text("compiler")));
  line("torch", fmt::format("{}, kernels for {}", text("torch"), text("torch_cpu_capability")));
  line("", text("torch_folder"));
  line("processor", fmt::format("{}, {} usable cores, {} threads", text("cpu"),
                                f.at("cores").get<int>(), f.at("threads").get<int>()));
  line("",
       fmt::format("{}", fmt::join(f.at("instruction_sets").get<std::vector<std::string>>(), " ")));
  const std::string openmp = text("openmp_waiting");
  line("waiting",
       openmp.empty()
           ? "OpenMP's threads spin for the library's default time: slow on a shared machine"
           : fmt::format("{}, {}", openmp,
                         f.at("openmp_waiting_is_ours").get<bool>()
                             ? "set by wavroute: OpenMP's threads spin for a moment"
                             : "from the environment"));
  line("", "for a Python program on a shared machine, set GOMP_SPINCOUNT=1000 before it starts");
  line("kernels",
       fmt::format("{}, of {}", text("kernels"),
                   fmt::join(f.at("usable_kernels").get<std::vector<std::string>>(), " ")));
  line("precision", fmt::format("auto is {} here", text("precision_auto")));
  const auto gpus = f.at("gpus").get<size_t>();
  const auto names = f.at("gpu_names").get<std::vector<std::string>>();
  const std::string by_cuda = gpus == 0 ? "none" : fmt::format("{} by CUDA", gpus);
  line("GPU", names.empty() ? by_cuda : fmt::format("{}, of {}", by_cuda, fmt::join(names, ", ")));
  const std::string lacks = text("gpu_kernels_missing");
  if (lacks.empty()) line("", "this build has kernels for it (train.kernels = \"fused\")");
  if (!lacks.empty() && (gpus > 0 || !names.empty())) line("", "no kernels of ours: " + lacks);
  line("memory", fmt::format("{}, {} of it available", gibibytes(f.at("memory_total")),
                             gibibytes(f.at("memory_available"))));
  line("cache", text("cache_folder").empty() ? "none" : text("cache_folder"));
  const std::string missing = text("baseline_missing");
  line("baselines", missing.empty() ? fmt::format("Python {} with torch {}", text("python_version"),
                                                  text("python_torch"))
                                    : "none: " + missing);
  if (missing.empty()) line("", text("python"));
  return out;
}

}  // namespace

void add_doctor(CLI::App& root, Action& action) {
  auto* doctor = root.add_subcommand("doctor", "Describe this machine and this build");
  auto json = std::make_shared<bool>(false);
  doctor->add_flag("--json", *json, "Print one JSON object");
  doctor->footer(
      "Examples:\n"
      "    wavroute doctor\n"
      "    wavroute doctor --json > doctor.json");
  doctor->callback([json, &action] {
    action = [json] {
      const auto found = examine();
      constexpr auto kReplace = nlohmann::json::error_handler_t::replace;  // paths are bytes
      print(*json ? found.dump(2, ' ', false, kReplace) + "\n" : screen(found));
      return 0;
    };
  });
}

}  // namespace wavroute::app
