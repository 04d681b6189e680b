#include "kernels/cuda/partial_sums.h"

namespace wavroute::kernels::cuda {
namespace {

// Blocks of kSumColumns columns by kSumSplit parts.
inline constexpr int kSumColumns = kWarp, kSumSplit = 8;
WAVROUTE_KERNEL add_parts(const float* parts, int64_t count, int64_t columns, Grid<float> to,
                          int64_t d) {
  const int column = thread() % kSumColumns, split = thread() / kSumColumns;
  const int64_t c = block() * kSumColumns + column;
  float sum = 0.0F;
  if (c < columns) {
    for (int64_t p = split; p < count; p += kSumSplit) sum += parts[p * columns + c];
  }
  float* const sums = shared<float>();
  sums[split * kSumColumns + column] = sum;
  barrier();
  if (split != 0 || c >= columns) return;
  for (int s = 1; s < kSumSplit; ++s) sum += sums[s * kSumColumns + column];
  to[c / d][c % d] += sum;
}

}  // namespace

void add_parts_to(const float* parts, int64_t count, int64_t columns, const Grid<float>& to,
                  int64_t d, Stream stream) {
  const Shape shape{(columns + kSumColumns - 1) / kSumColumns, kSumColumns * kSumSplit,
                    sizeof(float) * kSumColumns * kSumSplit};
  launch(add_parts, shape, stream, parts, count, columns, to, d);
}

}  // namespace wavroute::kernels::cuda
