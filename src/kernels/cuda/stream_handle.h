// The queue of a GPU's work that a kernel is put into.
#pragma once

struct CUstream_st;

namespace wavroute::kernels::cuda {

using Stream = CUstream_st*;  // a cudaStream_t; null: the default one

}  // namespace wavroute::kernels::cuda
