#include "ops/typed.h"

#include "ops/memory.h"

namespace wavroute::ops {

PartialSums::PartialSums(Memory& memory, int64_t chunks, int64_t count, bool wanted)
    : chunks_(chunks), count_(count) {
  if (wanted) values_ = memory.empty({chunks, count}, at::kFloat).zero_();
}

void PartialSums::add_to(float* target) const {
  if (!values_.defined()) return;
  for (int64_t chunk = 0; chunk < chunks_; ++chunk) {
    const float* partial = of(chunk);
    for (int64_t i = 0; i < count_; ++i) target[i] += partial[i];
  }
}

std::vector<float> PartialSums::total() const {
  std::vector<float> sums(static_cast<size_t>(count_));
  add_to(sums.data());
  return sums;
}

}  // namespace wavroute::ops
