#include "ops/rope.h"

#include <algorithm>
#include <utility>

namespace wavroute::ops {

RopeRows::RopeRows(at::Tensor frequency, double scale, const at::TensorOptions& options)
    : frequency_(std::move(frequency)), scale_(scale), options_(options) {}

RopeTable RopeRows::of(int64_t first, int64_t length) {
  const std::lock_guard lock(mutex_);
  const int64_t have = table_.cos.defined() ? table_.cos.size(0) : 0, wanted = first + length;
  if (!table_.cos.defined() || wanted > have) {
    table_ = rope_table(0, std::max(wanted, 2 * have), frequency_, scale_, options_);
  }
  return {table_.cos.narrow(0, first, length), table_.sin.narrow(0, first, length)};
}

}  // namespace wavroute::ops
