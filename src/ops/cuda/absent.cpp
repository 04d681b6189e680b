// Where the build has no GPU kernels: CMakeLists.txt says when it has.
#include "ops/backend.h"

namespace wavroute::ops {

std::unique_ptr<Backend> make_cuda_backend(at::Device /*device*/) { return nullptr; }

std::string why_no_cuda_backend() { return WAVROUTE_WHY_NO_CUDA; }

}  // namespace wavroute::ops
