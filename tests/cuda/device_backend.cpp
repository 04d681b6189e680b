// The back end `cuda` on a GPU, which sums in one order as training does by default.
#include <ATen/Context.h>

#include <cstdlib>

#include "tests/ops/tested_backend.h"

namespace wavroute::ops {

std::unique_ptr<Backend> make_tested_backend() {
  setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*replace=*/0);
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  at::globalContext().setDeterministicFillUninitializedMemory(false);
  return make_cuda_backend(tested_device());
}
at::Device tested_device() { return {at::kCUDA, 0}; }

}  // namespace wavroute::ops
