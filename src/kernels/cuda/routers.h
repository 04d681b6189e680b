// The parameters of routers on a GPU: what a block's reads need of them, and the way back. Pointers
// lead to its memory, but for the lists (routers, sums), which are on the host.
#pragma once

#include <cstdint>

#include "kernels/cuda/stream_handle.h"
#include "kernels/grid.h"

namespace wavroute::kernels::cuda {

// One router; without a query it reads nothing.
struct RouterPointers {
  const float *query = nullptr, *gain = nullptr;  // w, g [d]
  const float* bias = nullptr;                    // beta [details]; null: none
  float *query_grad = nullptr, *gain_grad = nullptr, *bias_grad = nullptr;
};

// query_r = w_r g_r; bias_rj = beta_r of the detail that source j is, 0 of a summary;
// running_bias_rs the same of the running sums.
struct GatherRouters {
  const RouterPointers* routers = nullptr;  // [count]
  const int64_t* sums = nullptr;            // [sources]: 0 a summary, k detail k - 1
  int64_t count = 0, sources = 0, running = 0, d = 0;
  Grid<float> query;         // [count, d]
  Grid<float> bias;          // [count, sources]
  Grid<float> running_bias;  // [count, running]
};
void gather_routers(const GatherRouters& args, Stream stream);

// w_grad += g t, g_grad += w t, with t = query_grad; beta_grad of a detail += the sum of bias_grad
// over the sources that are this detail.
struct AddRouterGrads {
  const RouterPointers* routers = nullptr;
  const int64_t* sums = nullptr;
  int64_t count = 0, sources = 0, d = 0;
  Grid<const float> query_grad;  // [count, d]
  Grid<const float> bias_grad;   // [count, sources]
};
void add_router_grads(const AddRouterGrads& args, Stream stream);

}  // namespace wavroute::kernels::cuda
