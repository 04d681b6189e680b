#include "opbench/peaks.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>

#include "model/device.h"
#include "ops/flat.h"
#include "ops/memory.h"
#include "ops/parallel.h"

namespace wavroute::opbench {
namespace {

constexpr int64_t kMegabyte = int64_t{1} << 20;

double seconds_of(const std::function<void()>& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The best of `rounds`, after a first one that touches every page.
double best_seconds(int rounds, const std::function<void()>& body) {
  body();
  double best = seconds_of(body);
  for (int i = 1; i < rounds; ++i) best = std::min(best, seconds_of(body));
  return best;
}

at::Tensor bytes(int64_t count) { return at::empty({count}, at::kByte); }

}  // namespace

double measure_product(at::ScalarType type) {
  const Precision precision = type == at::kFloat ? Precision::kFp32 : Precision::kBf16;
  // A model's two products by the MLP: tokens x width x 2 hidden, tokens x hidden x width.
  struct Shape {
    int64_t tokens, width, hidden;
  };
  double best = 0;
  for (const Shape& shape :
       {Shape{1024, 1024, 512}, Shape{2048, 2048, 1024}, Shape{2048, 512, 2048}}) {
    ModelConfig model;
    model.width = shape.width;
    model.hidden = shape.hidden;
    best = std::max(best, measure_product_peak(precision, model, shape.tokens, at::kCPU));
  }
  return best;
}

double measure_memory_copy() {
  constexpr int64_t kSize = 256 * kMegabyte;
  const at::Tensor from = bytes(kSize), to = bytes(kSize);
  auto* const source = from.mutable_data_ptr<uint8_t>();
  auto* const target = to.mutable_data_ptr<uint8_t>();
  ops::parallel_for(kSize, [&](int64_t begin, int64_t end) {
    std::memset(source + begin, 1, static_cast<size_t>(end - begin));
  });
  const double seconds = best_seconds(5, [&] {
    ops::parallel_for(kSize, [&](int64_t begin, int64_t end) {
      std::memcpy(target + begin, source + begin, static_cast<size_t>(end - begin));
    });
  });
  return 2.0 * static_cast<double>(kSize) / seconds;
}

double measure_memory_read() {
  const at::Tensor numbers = ops::empty_huge({256 * kMegabyte / 4}, at::kFloat).fill_(1.0);
  double sum = 0;
  const double seconds = best_seconds(5, [&] { sum += ops::sum_of_squares(numbers); });
  TORCH_INTERNAL_ASSERT(sum > 0);
  return static_cast<double>(numbers.nbytes()) / seconds;
}

double measure_cache_copy() {
  constexpr int64_t kHalf = kMegabyte / 2;
  constexpr int kCopies = 400;
  const int64_t threads = at::get_num_threads();
  const at::Tensor all = bytes(threads * kMegabyte);
  auto* const first = all.mutable_data_ptr<uint8_t>();
  std::memset(first, 1, all.nbytes());
  const double seconds = best_seconds(5, [&] {
    ops::parallel_for(threads, [&](int64_t begin, int64_t end) {
      for (int64_t thread = begin; thread < end; ++thread) {
        uint8_t* const own = first + thread * kMegabyte;
        // There and back, so that consecutive copies differ.
        for (int i = 0; i < kCopies; ++i) {
          std::memcpy(own + (i % 2 == 0 ? kHalf : 0), own + (i % 2 == 0 ? 0 : kHalf), kHalf);
        }
      }
    });
  });
  return 2.0 * static_cast<double>(threads * kHalf * kCopies) / seconds;
}

double Peaks::memory_copy() {
  if (!memory_copy_) memory_copy_ = measure_memory_copy();
  return *memory_copy_;
}

double Peaks::memory_read() {
  if (!memory_read_) memory_read_ = measure_memory_read();
  return *memory_read_;
}

double Peaks::product(at::ScalarType type) {
  std::optional<double>& peak = type == at::kFloat ? product_fp32_ : product_bf16_;
  if (!peak) peak = measure_product(type);
  return *peak;
}

}  // namespace wavroute::opbench
