// Times training steps of several models against each other: each model is a child process, and
// the children are stepped in turn (A B A B), so that noise hits all alike. Torch-free.
//
// A child obeys the worker protocol: one JSON object per line on its standard output.
//   at start  {"ready": true, "provider", "scheme", "precision", "layers", "width", "batch",
//              "context", "parameters", "flops_per_step": number or null}
//   "step"    does one step (forward, backward, update): {"ms": number, "loss": number}
//   "memory"  {"peak_rss_bytes": number}, the child's own VmHWM, or what it held of its GPU
//   "gemm"    {"gflops": number}, the best matrix product of its precision; asked of the provider
//             "wavroute" and of those that say "gemm": true when ready
//   "quit"    ends it; so does the end of its standard input
// On an error it prints {"error": "what"} and exits with status 1.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace wavroute {

struct StepJob {
  std::string label;
  std::string provider;  // "wavroute", "eager", "compile", or another mode of torch.compile
  std::string scheme;
  std::vector<std::string> argv;
  std::map<std::string, std::string> env;  // added to the environment of this process
  uint64_t estimate_bytes = 0;  // of memory; 0 = unknown. Replaced by what the first step takes
  std::vector<std::string> unset = {};  // names that it does not get of that environment
};

struct StepPlan {
  int warmup = 2;             // rounds that are not counted; at least 1, the first step
  int rounds = 10;            // rounds that are
  int busy = 0;               // processes that keep a core busy in a second half of those rounds
  uint64_t memory_limit = 0;  // bytes for all children that live at once; 0 = what is available
  std::chrono::milliseconds start_timeout{120'000};
  std::chrono::milliseconds first_step_timeout{900'000};  // it may have to compile
  std::chrono::milliseconds step_timeout{300'000};
};

struct StepResult {
  std::string label, provider, scheme, precision;
  int64_t layers = 0, width = 0, batch = 0, context = 0, parameters = 0;
  double ms_p20 = 0, ms_p50 = 0, ms_p80 = 0;
  double first_ms = 0;  // the first step, with whatever had to be compiled for it
  int busy = 0;         // the plan's; times without "busy" in their name are of the quiet machine
  double busy_ms_p20 = 0, busy_ms_p50 = 0, busy_ms_p80 = 0;  // beside them; 0 without
  double busy_ratio = 0;  // the median over the rounds of the busy step's time over the quiet one's
  double tokens_per_s = 0;
  uint64_t peak_rss_bytes = 0;
  double loss = 0;  // of the last step
  std::optional<double> flops_per_step;
  // flops_per_step / (ms_p50 * peak) * 100, where the peak is the best matrix product of the same
  // precision that any child of this measurement reached. Absent if none measured one.
  std::optional<double> percent_of_peak;
  // Throughput over that of the first job: the median, over the rounds that both took part in, of
  // the first job's time over this one's; not the quotient of two ms_p50. Absent if the two
  // did not fit in memory together, or if either failed.
  std::optional<double> ratio_to_first;
  std::string error, hint;  // why there are no numbers; empty if there are

  [[nodiscard]] bool ok() const { return error.empty(); }
};

// Called with one short sentence whenever something has happened.
using StepProgress = std::function<void(std::string_view)>;

// One result per job, in order. A job that fails reports its error, and the others continue. Jobs
// that
// do not fit in memory together run in groups, the first job in each of them.
// Throws UserError for a plan without rounds.
[[nodiscard]] std::vector<StepResult> measure_steps(std::span<const StepJob> jobs,
                                                    const StepPlan& plan,
                                                    const StepProgress& progress = {});

}  // namespace wavroute
