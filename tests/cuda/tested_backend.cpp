#include "tests/ops/tested_backend.h"

#include "tests/cuda/emulated_gpu.h"

namespace wavroute::ops {

std::unique_ptr<Backend> make_tested_backend() { return testing::make_emulated_backend(); }
at::Device tested_device() { return at::kCPU; }

}  // namespace wavroute::ops
