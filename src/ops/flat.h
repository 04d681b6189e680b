// Operators on flat buffers of parameters: the optimizer's update, norms and conversions.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/elementwise.h"

namespace wavroute::ops {

// One AdamW update of `count` elements (kernels/elementwise.h), over all threads.
void adamw(const kernels::AdamwStep& step, int64_t count);

// Sum of squares of a flat float tensor, in an order that does not depend on the number of threads.
[[nodiscard]] double sum_of_squares(const at::Tensor& values);

// to (float) += from (bfloat16), both contiguous.
void add_bf16(const at::Tensor& from, at::Tensor to);

// table.grad [V, d] += rows [tokens, d] at ids [tokens], in the order of the tokens. UserError for
// an id that is not a row of the table.
void add_rows(const at::Tensor& ids, const at::Tensor& rows, const at::Tensor& table);

}  // namespace wavroute::ops
