// Rows of matrices on a GPU: biases, and rows that are added to a table. All pointers lead to its
// memory. Sums over rows are made of partial sums that depend on the shape alone.
#pragma once

#include <cstdint>

#include "kernels/cuda/stream_handle.h"
#include "kernels/grid.h"
#include "kernels/types.h"

namespace wavroute::kernels::cuda {

// rows [count, width] += bias [width], in place.
template <typename C>
void add_bias(const Grid<C>& rows, int64_t count, const float* bias, int64_t width, Stream stream);
// grad [width] += the sum of the rows [count, width]. `scratch`: bias_grad_floats(count, width).
template <typename C>
void add_bias_grad(const Grid<const C>& rows, int64_t count, float* grad, int64_t width,
                   float* scratch, Stream stream);
[[nodiscard]] int64_t bias_grad_floats(int64_t count, int64_t width);

// table[ids[i]] += rows[order[i]], for each row of the table in the order of i.
struct AddRows {
  int64_t d = 0, count = 0;
  const int64_t* ids = nullptr;    // [count], from the least to the largest
  const int64_t* order = nullptr;  // [count]
  Grid<const float> rows;          // [count, d]
  Grid<float> table;               // [_, d]
  float* scratch = nullptr;        // add_rows_floats(count, d)
};
void add_rows(const AddRows& args, Stream stream);
[[nodiscard]] int64_t add_rows_floats(int64_t count, int64_t d);

}  // namespace wavroute::kernels::cuda
