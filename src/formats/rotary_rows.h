// The order of a query or key projection's rows. Hugging Face turns row i with row i + w/2 of a
// head (half-split), ggml's llama and llama2.c row 2i with row 2i + 1 (interleaved): the same
// function, with the rows of each head in another order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace wavroute {

// Row r of `rows` (or of a bias: rows of one number) in Hugging Face's order is row
// interleaved_row(r, width) in ggml's.
[[nodiscard]] inline int64_t interleaved_row(int64_t row, int64_t width) {
  const int64_t head = row / width, within = row % width, half = width / 2;
  return head * width + 2 * (within % half) + within / half;
}

// In place, both directions. width: of a head; columns: numbers of a row.
inline void reorder_rows(std::span<float> rows, int64_t width, int64_t columns,
                         bool to_half_split) {
  std::vector<float> head(static_cast<size_t>(width * columns));
  for (size_t first = 0; first + head.size() <= rows.size(); first += head.size()) {
    const std::span<float> here = rows.subspan(first, head.size());
    for (int64_t r = 0; r < width; ++r) {
      const int64_t from = to_half_split ? interleaved_row(r, width) : r;
      const int64_t to = to_half_split ? r : interleaved_row(r, width);
      for (int64_t c = 0; c < columns; ++c) {
        head[static_cast<size_t>(to * columns + c)] = here[static_cast<size_t>(from * columns + c)];
      }
    }
    std::copy(head.begin(), head.end(), here.begin());
  }
}

}  // namespace wavroute
