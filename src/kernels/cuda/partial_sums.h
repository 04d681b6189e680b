// Sums over rows in two fixed stages: teams add the rows of a part in their order, then the parts
// are added in theirs. Included by kernel sources only.
#pragma once

#include "kernels/cuda/row.h"

namespace wavroute::kernels::cuda {

// A part takes kPartRows rows, and more where there would be more than kMostParts parts.
inline constexpr int64_t kPartRows = 4;
inline constexpr int64_t kMostSumParts = 2048;
inline int64_t rows_of_part(int64_t rows) {
  const int64_t least = (rows + kMostSumParts - 1) / kMostSumParts;
  return least > kPartRows ? least : kPartRows;
}

inline int64_t part_count(int64_t rows) {
  const int64_t part_rows = rows_of_part(rows);
  return (rows + part_rows - 1) / part_rows;
}

// to [_, d] += the sum of parts [count, columns] over the parts, a row of `to` behind the other.
void add_parts_to(const float* parts, int64_t count, int64_t columns, const Grid<float>& to,
                  int64_t d, Stream stream);

}  // namespace wavroute::kernels::cuda
