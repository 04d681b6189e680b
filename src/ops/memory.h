// Where operators take the memory of what they return and of their scratch.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace wavroute::ops {

class Memory {
 public:
  Memory() = default;
  virtual ~Memory() = default;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  // A tensor with values that are not set.
  [[nodiscard]] virtual at::Tensor empty(at::IntArrayRef sizes, at::ScalarType type) = 0;
  [[nodiscard]] at::Tensor empty_like(const at::Tensor& other) {
    return empty(other.sizes(), other.scalar_type());
  }
  // [count, ...sizes], each of the `count` contiguous; they may lie apart.
  [[nodiscard]] virtual at::Tensor empty_apart(int64_t count, at::IntArrayRef sizes,
                                               at::ScalarType type) = 0;
  [[nodiscard]] at::Tensor empty_apart(int64_t count, at::IntArrayRef sizes) {
    return empty_apart(count, sizes, at::kFloat);
  }
};

// A CPU tensor with values that are not set, on huge pages where the system has them: for large
// memory that is read from beginning to end. The processor fetches in advance only as far as a page
// reaches.
[[nodiscard]] at::Tensor empty_huge(at::IntArrayRef sizes, at::ScalarType type);

// libtorch's memory of a device, for callers that have no step to keep memory for.
class SystemMemory final : public Memory {
 public:
  explicit SystemMemory(at::Device device = at::kCPU) : device_(device) {}

  [[nodiscard]] at::Tensor empty(at::IntArrayRef sizes, at::ScalarType type) override;
  [[nodiscard]] at::Tensor empty_apart(int64_t count, at::IntArrayRef sizes,
                                       at::ScalarType type) override;
  using Memory::empty_apart;

 private:
  at::Device device_;
};

}  // namespace wavroute::ops
