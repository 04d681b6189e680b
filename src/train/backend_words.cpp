#include "train/backend_words.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <vector>

namespace wavroute {
namespace {

// What a training, its evaluations and its samples may need besides plain passes.
std::vector<std::string> on_stock_operators(const ops::Backend& backend) {
  std::vector<std::string> passes;
  if (!backend.serves({.taps = true})) passes = {"routing maps", "layer sizes"};
  if (!backend.serves({.program = true})) passes.emplace_back("layer programs");
  return passes;
}

}  // namespace

std::string backend_words(const ops::Backend& backend, at::Device device, Precision precision) {
  std::string name = ops::describe(backend.kind());
  if (backend.kind() == ops::BackendKind::kCuda) {
    return fmt::format("{} ({} on stock operators)", name,
                       fmt::join(on_stock_operators(backend), ", "));
  }
  if (backend.kind() != ops::BackendKind::kComposed || !device.is_cuda()) return name;
  if (precision == Precision::kFp64) return name + " (there are no kernels for fp64)";
  const std::string why = ops::why_no_cuda_backend();
  return why.empty() ? name : fmt::format("{} ({})", name, why);
}

}  // namespace wavroute
