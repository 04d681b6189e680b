// The memory of a training step. A step asks for the same tensors in the same order every time:
// memory that one gives back serves the next of its size, within a step and from step to step, so
// that after the first step nothing is taken from the system. What steps of other sizes left is
// kept as long as it is no more than the largest of them needs.
#pragma once

#include <cstdint>
#include <memory>

#include "ops/memory.h"

namespace wavroute::ops {

class Arena final : public Memory {
 public:
  Arena();

  // Says that a pass begins. Where all sizes that were ever asked for take more than thrice what
  // the largest pass needed (and a slab of 32 MiB), the arena lets go of them and starts anew: a
  // process whose passes all differ doesn't grow.
  void begin_pass();

  // A CPU tensor with values that are not set. Its memory returns to the arena with its last
  // reference, from any thread, also after the arena is gone.
  [[nodiscard]] at::Tensor empty(at::IntArrayRef sizes, at::ScalarType type) override;
  // With a gap between each and the next: rows of whole pages, which most are, would compete for
  // the same few places of a cache.
  [[nodiscard]] at::Tensor empty_apart(int64_t count, at::IntArrayRef sizes,
                                       at::ScalarType type) override;
  using Memory::empty_apart;

  // Bytes of all sizes that the arena holds, lent or free.
  [[nodiscard]] int64_t bytes() const;
  // Times that no free memory of the size was there, ever.
  [[nodiscard]] int64_t misses() const;

 private:
  class Pool;
  std::shared_ptr<Pool> pool_;
  int64_t earlier_misses_ = 0;  // of pools that were let go
};

}  // namespace wavroute::ops
