// kernels/stream.h on a GPU: all pointers lead to its memory.
#pragma once

#include <cstdint>

#include "kernels/cuda/stream_handle.h"
#include "kernels/stream.h"

namespace wavroute::kernels::cuda {

// All `rows` rows. Throws std::runtime_error where the device refuses a kernel, and
// std::invalid_argument for d beyond 8192.
template <typename C>
void add_norm(const AddNorm<C>& args, int64_t rows, Stream stream);

// The same of the backward. Sums over rows are made of partial sums that depend on `rows` and d
// alone. `scratch`: partial_sums(rows) * d floats for each of gain_grad and scale_grad that is
// wanted.
template <typename C>
void add_norm_backward(const AddNormBackward<C>& args, int64_t rows, float* scratch, Stream stream);

// How many partial sums there are over `rows` rows.
[[nodiscard]] int64_t partial_sums(int64_t rows);

}  // namespace wavroute::kernels::cuda
