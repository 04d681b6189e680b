#include "ops/rope.h"

#include <algorithm>
#include <utility>

namespace wavroute::ops {

RopeRows::RopeRows(at::Tensor frequency, double scale, const at::TensorOptions& options)
    : frequency_(std::move(frequency)), scale_(scale), options_(options) {}

RopeTable RopeRows::of(int64_t first, int64_t length) {
  const std::lock_guard lock(mutex_);
  const int64_t have = tables_.empty() ? 0 : tables_.back().cos.size(0), wanted = first + length;
  if (tables_.empty() || wanted > have) {
    tables_.push_back(rope_table(0, std::max(wanted, 2 * have), frequency_, scale_, options_));
  }
  const RopeTable& table = tables_.back();
  return {table.cos.narrow(0, first, length), table.sin.narrow(0, first, length)};
}

}  // namespace wavroute::ops
