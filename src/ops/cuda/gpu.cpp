// The GPU itself, by libtorch's streams, graphs and flash attention.
#include "ops/cuda/gpu.h"

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "ops/backend.h"
#include "ops/cuda/cuda_backend.h"

namespace wavroute::ops {
namespace {

constexpr int64_t kMostFlashWidth = 256;

class GraphRecording final : public Recording {
 public:
  // On a stream of its own: the default one can't be recorded.
  GraphRecording(at::Device device, at::cuda::MempoolId_t pool, const std::function<void()>& work)
      : device_(device) {
    const c10::cuda::CUDAStream stream = c10::cuda::getStreamFromPool(false, device.index());
    const c10::cuda::CUDAStream before = c10::cuda::getCurrentCUDAStream(device.index());
    before.synchronize();
    // What the same work took when it ran as it is: a graph has memory of its own.
    c10::cuda::CUDACachingAllocator::emptyCache();
    const c10::cuda::CUDAStreamGuard guard(stream);
    graph_.capture_begin(pool, cudaStreamCaptureModeThreadLocal);
    try {
      work();
    } catch (...) {
      give_up(pool);
      throw;
    }
    graph_.capture_end();
  }
  void start() override {
    const c10::cuda::CUDAGuard guard(device_);
    graph_.replay();
  }

 private:
  // What made the work fail may have ended the capture too, and then the allocator doesn't learn of
  // the end.
  void give_up(at::cuda::MempoolId_t pool) {
    try {
      graph_.capture_end();
    } catch (const c10::Error&) {
      c10::cuda::CUDACachingAllocator::endAllocateToPool(device_.index(), pool);
    }
  }

  at::Device device_;
  at::cuda::CUDAGraph graph_;
};

class PinnedMailbox final : public Mailbox {
 public:
  explicit PinnedMailbox(at::Tensor device)
      : device_(std::move(device)),
        host_(at::empty(device_.sizes(), device_.options().device(at::kCPU).pinned_memory(true))),
        copied_(at::kCUDA) {}
  [[nodiscard]] at::Tensor host() const override { return host_; }
  void send() override {
    device_.copy_(host_, /*non_blocking=*/true);
    mark();
  }
  void fetch() override {
    host_.copy_(device_, /*non_blocking=*/true);
    mark();
  }
  void wait() override { copied_.synchronize(); }

 private:
  void mark() { copied_.record(c10::cuda::getCurrentCUDAStream(device_.device().index())); }

  at::Tensor device_, host_;
  c10::Event copied_;
};

class CudaGpu final : public Gpu {
 public:
  explicit CudaGpu(at::Device device) : device_(device), pool_(at::cuda::graph_pool_handle()) {}

  [[nodiscard]] at::Device device() const override { return device_; }
  [[nodiscard]] kernels::cuda::Stream stream() const override {
    return c10::cuda::getCurrentCUDAStream(device_.index()).stream();
  }

  [[nodiscard]] bool has_flash(int64_t width, at::ScalarType type) const override {
    return type == at::kBFloat16 && width % 8 == 0 && width <= kMostFlashWidth;
  }
  [[nodiscard]] FlashResult flash_attention(const at::Tensor& q, const at::Tensor& k,
                                            const at::Tensor& v) override {
    const int64_t length = q.size(1);
    auto result = at::_flash_attention_forward(q, k, v, std::nullopt, std::nullopt, length, length,
                                               /*dropout_p=*/0.0, /*is_causal=*/true,
                                               /*return_debug_mask=*/false);
    return {std::get<0>(result), std::get<1>(result)};
  }
  // Sums in one order where libtorch is asked for its deterministic kernels.
  [[nodiscard]] FlashGrads flash_attention_backward(const at::Tensor& q, const at::Tensor& k,
                                                    const at::Tensor& v, const FlashResult& forward,
                                                    const at::Tensor& dy) override {
    const int64_t length = q.size(1);
    // The state of random numbers, which there are none of.
    const auto state = q.options().dtype(at::kUInt64);
    auto grads = at::_flash_attention_backward(
        dy, q, k, v, forward.y, forward.lse, {}, {}, length, length, /*dropout_p=*/0.0,
        /*is_causal=*/true, at::empty({2}, state), at::empty({}, state));
    return {std::get<0>(grads), std::get<1>(grads), std::get<2>(grads)};
  }

  void add_product(at::Tensor sum, const at::Tensor& a, const at::Tensor& b) override {
    at::addmm_out(sum, sum, a, b, at::kFloat);
  }

  [[nodiscard]] std::unique_ptr<Recording> record(const std::function<void()>& work) override {
    return std::make_unique<GraphRecording>(device_, pool_, work);
  }
  [[nodiscard]] std::unique_ptr<Mailbox> mailbox(at::Tensor device) override {
    return std::make_unique<PinnedMailbox>(std::move(device));
  }

 private:
  at::Device device_;
  at::cuda::MempoolId_t pool_;  // of all graphs: one runs at a time
};

}  // namespace

std::unique_ptr<Backend> make_cuda_backend(at::Device device) {
  if (!device.is_cuda()) return nullptr;
  return std::make_unique<CudaBackend>(std::make_unique<CudaGpu>(device));
}

std::string why_no_cuda_backend() { return ""; }

}  // namespace wavroute::ops
