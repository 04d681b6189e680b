#include "ops/flat.h"

#include <vector>

#include "ops/ids.h"
#include "ops/parallel.h"
#include "ops/typed.h"

namespace wavroute::ops {
namespace {

constexpr int64_t kElementsPerChunk = int64_t{1} << 15;

}  // namespace

void adamw(const kernels::AdamwStep& step, int64_t count) {
  const auto kernel = kernels::chosen_kernels().flat->adamw;
  for_chunks(
      count, [&](int64_t, int64_t begin, int64_t end) { kernel(step, begin, end); },
      kElementsPerChunk);
}

double sum_of_squares(const at::Tensor& values) {
  const int64_t count = values.numel();
  std::vector<double> parts(static_cast<size_t>(chunk_count(count, kElementsPerChunk)));
  const auto kernel = kernels::chosen_kernels().flat->sum_of_squares;
  for_chunks(
      count,
      [&](int64_t chunk, int64_t begin, int64_t end) {
        parts[static_cast<size_t>(chunk)] = kernel(in<float>(values), begin, end);
      },
      kElementsPerChunk);
  double sum = 0.0;
  for (const double part : parts) sum += part;
  return sum;
}

void add_bf16(const at::Tensor& from, at::Tensor to) {
  const auto kernel = kernels::chosen_kernels().flat->add_bf16;
  for_chunks(
      from.numel(),
      [&](int64_t, int64_t begin, int64_t end) {
        kernel(in<kernels::Bf16>(from), out<float>(to), begin, end);
      },
      kElementsPerChunk);
}

void add_rows(const at::Tensor& ids, const at::Tensor& rows, const at::Tensor& table) {
  const int64_t tokens = ids.numel(), d = table.size(1);
  check_ids(ids, table.size(0));
  const int64_t* id = in<int64_t>(ids);
  const kernels::Grid<const float> from = rows_in<float>(rows);
  const kernels::Grid<float> to = rows_out<float>(table);
  constexpr int64_t kLine = 16;                               // floats of a cache line
  const auto add_columns = [&](int64_t begin, int64_t end) {  // each thread has its own columns
    for (int64_t token = 0; token < tokens; ++token) {
      float* row = to[id[token]];
      const float* grad = from[token];
      for (int64_t c = begin; c < end; ++c) row[c] += grad[c];
    }
  };
  parallel_for(d, add_columns, kLine);
}

}  // namespace wavroute::ops
