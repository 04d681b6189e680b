#include "tests/ops/tested_backend.h"

namespace wavroute::ops {

std::unique_ptr<Backend> make_tested_backend() { return make_cpu_backend(); }
at::Device tested_device() { return at::kCPU; }

}  // namespace wavroute::ops
