// `wavroute bench peak`: what this machine reaches. `wavroute bench op`: each of our operators
// beside its composed form of stock libtorch operators.
#include "bench_op.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/build_info.h"
#include "base/machine.h"
#include "base/output.h"
#include "base/threads.h"
#include "base/utc.h"
#include "opbench/measure.h"
#include "opbench/peaks.h"
#include "validators.h"
#include "wavroute/error.h"

namespace wavroute::app {
namespace {

struct PeakOptions {
  std::vector<std::string> names;
  int threads = 0;
  bool json = false;
};

struct OpOptions {
  std::vector<std::string> names, precisions{"fp32", "bf16"};
  opbench::Plan plan;
  int threads = 0;
  bool json = false;
  std::string csv;
};

struct Peak {
  std::string name, what;
  std::function<double()> measure;  // per second
  std::string unit;
};

const std::vector<Peak>& peaks() {
  static const std::vector<Peak> all = {
      {"product_fp32", "matrix product, fp32", [] { return opbench::measure_product(at::kFloat); },
       "GFLOP/s"},
      {"product_bf16", "matrix product, bf16",
       [] { return opbench::measure_product(at::kBFloat16); }, "GFLOP/s"},
      {"read_memory", "read, 256 MB", opbench::measure_memory_read, "GB/s"},
      {"copy_memory", "copy, 256 MB buffers", opbench::measure_memory_copy, "GB/s"},
      {"copy_cache", "copy, 1 MB a thread", opbench::measure_cache_copy, "GB/s"},
  };
  return all;
}

void use_threads(int threads, const Machine& machine) {
  at::set_num_threads(threads_to_use(threads, machine));
}

int bench_peak(const PeakOptions& options) {
  use_threads(options.threads, probe_machine());
  const int threads = at::get_num_threads();
  if (!options.json) print(fmt::format("{:<22}  {:>8}  {} threads\n", "peak", "", threads));
  for (const Peak& peak : peaks()) {
    if (!options.names.empty() && std::ranges::count(options.names, peak.name) == 0) continue;
    const double billions = peak.measure() / 1e9;
    if (options.json) {
      const nlohmann::ordered_json line = {
          {"peak", peak.name}, {"value", billions}, {"unit", peak.unit}, {"threads", threads}};
      print(line.dump() + "\n");
    } else {
      print(fmt::format("{:<22}  {:>8.1f}  {}\n", peak.what, billions, peak.unit));
    }
  }
  return 0;
}

int bench_op(OpOptions options) {
  const auto chosen = opbench::find_operators(options.names);
  for (const auto& precision : options.precisions) {
    options.plan.types.push_back(precision == "fp32" ? at::kFloat : at::kBFloat16);
  }
  const Machine machine = probe_machine();
  use_threads(options.threads, machine);
  const auto results = opbench::measure(
      chosen, options.plan, [](std::string_view what) { note(fmt::format("  {}", what)); });
  const auto keep = [&] {
    if (options.csv.empty()) return;
    append_op_csv(options.csv,
                  {utc_now(), std::string(build_info().commit), machine.cpu_model, machine.cores},
                  results);
  };
  const auto show = [&] {
    if (options.json) {
      for (const auto& result : results) print(op_json(result).dump() + "\n");
    } else {
      print(op_table(results));
    }
    flush();
  };
  keep_and_show(keep, show);
  return 0;
}

constexpr const char* kOpExamples =
    "Examples:\n"
    "    wavroute bench op norm route_mix --width 256,512\n"
    "    wavroute bench op --precision fp32 --rounds 5 --csv ops.csv\n\n";

std::string list_of_operators() {
  std::string list = "Operators:";
  for (const auto& op : opbench::operators())
    list += fmt::format("\n  {:<20} {}", op.name, op.what);
  return list;
}

}  // namespace

void keep_and_show(const std::function<void()>& keep, const std::function<void()>& show) {
  try {
    keep();
  } catch (const Error&) {
    show();
    throw;
  }
  show();
}

void add_bench_peak(CLI::App& bench, Action& action) {
  auto options = std::make_shared<PeakOptions>();
  auto* peak =
      bench.add_subcommand("peak", "Measure the peak speed of products and copies on this machine");
  std::vector<std::string> names;
  for (const Peak& each : peaks()) names.push_back(each.name);
  peak->add_option("PEAK", options->names, "Default: all of them")->check(CLI::IsMember(names));
  peak->add_option("--threads", options->threads, "0: OMP_NUM_THREADS, or all cores")
      ->check(integer_from(0, std::numeric_limits<int>::max()))
      ->capture_default_str();
  peak->add_flag("--json", options->json, "One JSON object per line");
  peak->footer(
      "Examples:\n"
      "    wavroute bench peak\n"
      "    wavroute bench peak copy_memory --threads 1");
  peak->callback([options, &action] { action = [options] { return bench_peak(*options); }; });
}

void add_bench_op(CLI::App& bench, Action& action) {
  auto options = std::make_shared<OpOptions>();
  options->plan.widths = {256, 512};
  auto* op = bench.add_subcommand("op", "Time each operator beside stock libtorch, in turn");
  op->add_option("OPERATOR", options->names, "Default: all of them");
  op->add_option("--width", options->plan.widths, "Of the stream, multiples of 64")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(integer_from(1, std::numeric_limits<int>::max()))
      ->capture_default_str();
  op->add_option("--precision", options->precisions, "Compute types")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::IsMember({"fp32", "bf16"}))
      ->capture_default_str();
  op->add_option("--tokens", options->plan.tokens, "Rows of every operator")
      ->check(integer_from(1, std::numeric_limits<int>::max()))
      ->capture_default_str();
  op->add_option("--rounds", options->plan.rounds, "Timed runs of each")
      ->check(integer_from(1, std::numeric_limits<int>::max()))
      ->capture_default_str();
  op->add_option("--threads", options->threads, "0: OMP_NUM_THREADS, or all cores")
      ->check(integer_from(0, std::numeric_limits<int>::max()))
      ->capture_default_str();
  op->add_option("--csv", options->csv, "Append a row per result to this file");
  op->add_flag("--json", options->json, "Print one JSON object per line");
  op->footer([] { return kOpExamples + list_of_operators(); });
  op->callback([options, &action] { action = [options] { return bench_op(*options); }; });
}

}  // namespace wavroute::app
