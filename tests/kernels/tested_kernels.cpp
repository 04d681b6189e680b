// The CPU's kernels, of every instruction set that this machine has.
#include "tests/kernels/kernel_test.h"

namespace wavroute::kernels {

std::vector<TestedKernels> tested_kernels() {
  std::vector<TestedKernels> all;
  for (const Kernels& kernels : usable_kernels()) all.push_back({kernels, to_string(kernels.isa)});
  return all;
}

}  // namespace wavroute::kernels
