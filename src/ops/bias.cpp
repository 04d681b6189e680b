#include "ops/bias.h"

#include <algorithm>
#include <array>
#include <type_traits>

#include "ops/parallel.h"
#include "ops/typed.h"

namespace wavroute::ops {
namespace {

// The kernels' bfloat16 is 16 bits without arithmetic.
template <typename C>
using Number = std::conditional_t<std::is_same_v<C, float>, float, c10::BFloat16>;

}  // namespace

void add_bias(const at::Tensor& rows, const at::Tensor& bias) {
  const int64_t width = rows.size(1);
  with_type(rows.scalar_type(), [&]<typename C>() {
    using T = Number<C>;
    const kernels::Grid<T> all = rows_out<T>(rows);
    const float* const added = in<float>(bias);
    for_chunks(rows.size(0), [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        T* const at = all[row];
        for (int64_t j = 0; j < width; ++j) {
          at[j] = static_cast<T>(static_cast<float>(at[j]) + added[j]);
        }
      }
    });
  });
}

void add_bias_grad(const at::Tensor& du, const at::Tensor& grad) {
  constexpr int64_t kColumns = 64;  // of one thread: whole cache lines, in bfloat16 too
  const int64_t tokens = du.size(0), width = du.size(1);
  with_type(du.scalar_type(), [&]<typename C>() {
    using T = Number<C>;
    const kernels::Grid<const T> rows = rows_in<T>(du);
    float* const sums = out<float>(grad);
    parallel_for(chunk_count(width, kColumns), [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        const int64_t first = block * kColumns, count = std::min(kColumns, width - first);
        std::array<float, kColumns> sum{};
        for (int64_t token = 0; token < tokens; ++token) {
          const T* const at = rows[token] + first;
          for (int64_t j = 0; j < count; ++j) {
            sum[static_cast<size_t>(j)] += static_cast<float>(at[j]);
          }
        }
        for (int64_t j = 0; j < count; ++j) sums[first + j] += sum[static_cast<size_t>(j)];
      }
    });
  });
}

}  // namespace wavroute::ops
