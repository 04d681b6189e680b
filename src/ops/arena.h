// The memory of a training step. A step allocates the same tensors in the same order every time:
// memory that one returns is reused for the next of its size, within a step and from step to step,
// so that after the first step nothing is allocated from the system. Memory of other sizes is kept
// within a multiple of what the largest pass needs (begin_pass).
#pragma once

#include <cstdint>
#include <memory>

#include "ops/memory.h"

namespace wavroute::ops {

class Arena final : public Memory {
 public:
  Arena();

  // Call it when a pass begins. If all held sizes together take more than three times what the
  // largest pass needed (and a slab of 32 MiB), the arena frees them and starts afresh: a process
  // whose passes all differ doesn't grow.
  void begin_pass();

  // A CPU tensor with values that are not set. Its memory returns to the arena with its last
  // reference, from any thread, also after the arena is gone.
  [[nodiscard]] at::Tensor empty(at::IntArrayRef sizes, at::ScalarType type) override;
  // With a gap between each and the next: rows of whole pages, which most are, would compete for
  // the same few cache sets.
  [[nodiscard]] at::Tensor empty_apart(int64_t count, at::IntArrayRef sizes,
                                       at::ScalarType type) override;
  using Memory::empty_apart;

  // Bytes that the arena holds, in use or free.
  [[nodiscard]] int64_t bytes() const;
  // How often there was no free memory of the requested size, in total.
  [[nodiscard]] int64_t misses() const;

 private:
  class Pool;
  std::shared_ptr<Pool> pool_;
  int64_t earlier_misses_ = 0;  // of pools that were freed
};

}  // namespace wavroute::ops
