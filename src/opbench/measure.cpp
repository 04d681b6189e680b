#include "opbench/measure.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <chrono>

#include "base/numbers.h"
#include "opbench/peaks.h"
#include "wavroute/error.h"

namespace wavroute::opbench {
namespace {

constexpr int64_t kWidthStep = 64;  // a head

double milliseconds(const Form& form) {
  if (form.prepare) form.prepare();
  const auto start = std::chrono::steady_clock::now();
  (void)form.run();
  const std::chrono::duration<double, std::milli> ms = std::chrono::steady_clock::now() - start;
  return ms.count();
}

OpResult time_case(const Case& what, const Plan& plan) {
  std::vector<double> ours, composed;
  for (int round = -plan.warmup; round < plan.rounds; ++round) {
    const double a = milliseconds(what.ours), b = milliseconds(what.composed);
    if (round < 0) continue;
    ours.push_back(a);
    composed.push_back(b);
  }
  OpResult result;
  result.mode = what.mode;
  result.size = what.size;
  result.ms_p20 = quantile(ours, 0.2);
  result.ms_p50 = quantile(ours, 0.5);
  result.ms_p80 = quantile(ours, 0.8);
  result.composed_ms_p50 = quantile(composed, 0.5);
  result.bytes = what.bytes;
  result.flops = what.flops;
  return result;
}

Tensors results_of(const Form& form) {
  if (form.prepare) form.prepare();
  Tensors results;
  for (const at::Tensor& result : form.run()) results.push_back(result.to(at::kDouble).clone());
  return results;
}

constexpr uint64_t kSeed = 1;  // of the operators' arguments

}  // namespace

void check_agreement(const Case& what, at::ScalarType type) {
  // Sums of up to a few thousand rounded terms; bfloat16 keeps 8 bits of each.
  const double most = type == at::kFloat ? 1e-4 : 2e-2;
  const Tensors ours = results_of(what.ours), composed = results_of(what.composed);
  TORCH_INTERNAL_ASSERT(!ours.empty() && ours.size() == composed.size(), what.mode);
  for (size_t i = 0; i < ours.size(); ++i) {
    const at::Tensor expected = composed[i].reshape(ours[i].sizes());
    const double size = at::linalg_vector_norm(expected).item<double>();
    const double distance = at::linalg_vector_norm(ours[i] - expected).item<double>();
    if (distance <= most * size) continue;  // false for a NaN as well
    throw Failure(expectation(fmt::format("result {} of {} {} within {:.0e} of the composed form's",
                                          i + 1, what.mode, what.size, most),
                              fmt::format("{:.2e}", distance / size)),
                  "this looks like a bug; please file an issue with the line of `wavroute doctor`");
  }
}

std::vector<OpResult> measure(std::span<const Operator* const> operators, const Plan& plan,
                              const std::function<void(std::string_view)>& progress) {
  for (const int64_t width : plan.widths) {
    if (width > 0 && width % kWidthStep == 0) continue;
    throw expected(fmt::format("multiples of {}", kWidthStep), width, "as --width");
  }
  Peaks peaks;
  std::vector<OpResult> results;
  for (const Operator* op : operators) {
    for (const int64_t width : plan.widths) {
      for (const at::ScalarType type : plan.types) {
        const std::string precision = type == at::kFloat ? "fp32" : "bf16";
        // The same numbers in every run: a sum over tokens, the gradient of a bias for instance, is
        // close to zero for some draws, and its rounding errors are then large beside it.
        at::manual_seed(kSeed);
        op->show({plan.tokens, width, type}, [&](const Case& what) {
          if (progress) {
            progress(fmt::format("{} {} {} {}", op->name, what.mode, what.size, precision));
          }
          check_agreement(what, type);
          OpResult result = time_case(what, plan);
          result.name = op->name;
          result.precision = precision;
          result.tokens = plan.tokens;
          result.width = width;
          result.threads = at::get_num_threads();
          result.peak = !result.is_memory_bound() ? peaks.product(type)
                        : what.reads              ? peaks.memory_read()
                                                  : peaks.memory_copy();
          results.push_back(result);
        });
      }
    }
  }
  return results;
}

}  // namespace wavroute::opbench
