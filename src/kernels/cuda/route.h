// kernels/route.h on a GPU: all pointers lead to its memory, but for the lists of sources
// (MixFinished::rows and the like), which are on the host. Sums over rows are made of partial sums
// that depend on the shape alone. Functions throw std::runtime_error where the device refuses a
// kernel, and std::invalid_argument for rows beyond 8192 numbers.
#pragma once

#include <cstdint>

#include "kernels/cuda/stream_handle.h"
#include "kernels/route.h"

namespace wavroute::kernels::cuda {

// `bias` [running]: the reader's of its running sources, whose own `bias` is not looked at.
template <typename C>
void write_read(const WriteRead<C>& args, const float* bias, int64_t rows, Stream stream);
template <typename C>
void finish_block(const FinishBlock<C>& args, int64_t rows, Stream stream);
// `bias` as above; `scratch`: read_backward_floats(rows, d).
template <typename C>
void read_backward(const ReadBackward<C>& args, const float* bias, int64_t rows, float* scratch,
                   Stream stream);
[[nodiscard]] int64_t read_backward_floats(int64_t rows, int64_t d);
template <typename C>
void update_grad(const UpdateGrad<C>& args, int64_t rows, Stream stream);

template <typename R>
void source_scalars(const SourceScalars<R>& args, int64_t rows, Stream stream);
template <typename R, typename M>
void mix(const MixFinished<R, M>& args, int64_t rows, Stream stream);
// `scratch`: mix_backward_floats of the same numbers.
template <typename R, typename M>
void mix_backward(const MixFinishedBackward<R, M>& args, int64_t rows, float* scratch,
                  Stream stream);
[[nodiscard]] int64_t mix_backward_floats(int64_t rows, int64_t d, int64_t routers,
                                          int64_t sources);

}  // namespace wavroute::kernels::cuda
