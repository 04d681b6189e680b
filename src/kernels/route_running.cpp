// The kernels of the running block, one set of them per instruction set. See route.h.
#include "kernels/kernels.h"
#include "kernels/running_read_backward.h"
#include "kernels/running_write_read.h"

namespace wavroute::kernels::WAVROUTE_ISA {

extern const ByType<RunningKernels> running_kernels;
const ByType<RunningKernels> running_kernels = {
    {write_read<float>, finish_block<float>, read_backward<float>, update_grad<float>},
    {write_read<Bf16>, finish_block<Bf16>, read_backward<Bf16>, update_grad<Bf16>},
};

}  // namespace wavroute::kernels::WAVROUTE_ISA
