// What a CUDA graph is, without a GPU: the work that host code gives the device, operators of
// libtorch and launches of our kernels, with the memory that each reads and writes. It is written
// down while the host code runs, changes nothing then that was there before, and is done again
// without the host code, in the same memory. So a recording that depends on anything but the
// device's memory gives other numbers here too.
//
// All tensors of the work are of the CPU. What would wait for the device there is refused: a number
// that the host asks for (item), a choice whose size depends on values (nonzero), a copy that names
// a device (to).
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <vector>

namespace wavroute::testing {

class Tape {
 public:
  // Runs `work` and writes down what it gives the device. Throws c10::Error where it waits for it.
  explicit Tape(const std::function<void()>& work);
  ~Tape();
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  void replay();

 private:
  friend class Recorder;
  std::vector<std::function<void()>> steps_;
  std::vector<at::Tensor> memory_;  // of all that was made meanwhile
};

// What `work` gives, as one operator of the device whatever it is made of.
[[nodiscard]] std::vector<at::Tensor> as_one_operator(
    const std::function<std::vector<at::Tensor>()>& work);

}  // namespace wavroute::testing
