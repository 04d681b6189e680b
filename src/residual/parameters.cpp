#include "wavroute/parameters.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include "base/philox.h"
#include "ops/memory.h"
#include "ops/parallel.h"

namespace wavroute {
namespace {

constexpr int64_t kAlignment = 64;  // bytes: a cache line, and the widest vector

int64_t product(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

// Fills `target` (any type, any device) with the slice's initial values.
void fill(const ParameterSlice& slice, uint64_t seed, const at::Tensor& target) {
  if (slice.init.stddev == 0.0 && slice.init.values.empty()) {
    target.fill_(slice.init.constant);
    return;
  }
  const Philox random(seed, "init", slice.name);
  constexpr int64_t kPart = int64_t{1} << 20;  // bounds the memory of the doubles; even
  const at::Tensor flat = target.view({-1});
  const int64_t count = flat.numel();
  at::Tensor host = at::empty({std::min(kPart, count)}, at::kDouble);
  double* values = host.mutable_data_ptr<double>();
  for (int64_t first = 0; first < count; first += kPart) {
    const int64_t last = std::min(first + kPart, count);
    ops::parallel_for((last - first + 1) / 2, [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) {
        const auto pair = random.normal_pair(static_cast<uint64_t>(first / 2 + k));
        for (int64_t i = first + 2 * k; i < std::min(first + 2 * k + 2, last); ++i) {
          values[i - first] =
              slice.init.center(i) + slice.init.stddev * pair[static_cast<size_t>(i % 2)];
        }
      }
    });
    flat.narrow(0, first, last - first).copy_(host.narrow(0, 0, last - first));
  }
}

// Zeros that take no memory until they are written: the gradients of a model that isn't trained
// never are.
at::Tensor untouched_zeros(int64_t size, const at::TensorOptions& options) {
  const size_t bytes = static_cast<size_t>(size) * options.dtype().itemsize();
  void* memory = MAP_FAILED;
  if (options.device().is_cpu() && bytes > 0) {
    memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  }
  if (memory == MAP_FAILED) return at::zeros({size}, options);
  const auto give_back = [bytes](void* at) { ::munmap(at, bytes); };
  return at::from_blob(memory, {size}, give_back, options);
}

at::Tensor zeros(int64_t count, const at::TensorOptions& options) {
  if (!options.device().is_cpu()) return at::zeros({count}, options);
  return ops::empty_huge({count}, c10::typeMetaToScalarType(options.dtype())).zero_();
}

}  // namespace

std::vector<int64_t> Parameter::shape_of(const ParameterSlice& slice) const {
  std::vector<int64_t> result = shape;
  result[0] = slice.rows;
  return result;
}

at::Tensor Parameter::rows(const ParameterSlice& slice, const at::Tensor& whole) const {
  return slices.size() == 1 ? whole : whole.narrow(0, slice.first_row, slice.rows);
}

int64_t Parameter::count() const { return product(shape); }

at::Tensor Parameter::view(const at::Tensor& flat) const {
  return flat.narrow(0, offset, count()).view(shape);
}

Parameter& ParameterTable::declare(const std::string& name, std::vector<int64_t> shape, Decay decay,
                                   Init init) {
  Parameter& parameter = parameters_.emplace_back();
  parameter.slices.push_back({name, 0, shape.at(0), std::move(init)});
  parameter.shape = std::move(shape);
  parameter.decay = decay;
  return parameter;
}

Parameter& ParameterTable::declare_fused(std::vector<ParameterSlice> slices, int64_t columns,
                                         Decay decay) {
  Parameter& parameter = parameters_.emplace_back();
  int64_t rows = 0;
  for (ParameterSlice& slice : slices) {
    slice.first_row = rows;
    rows += slice.rows;
  }
  parameter.slices = std::move(slices);
  parameter.shape = {rows, columns};
  parameter.decay = decay;
  return parameter;
}

Parameter& ParameterTable::declare_fused_vector(std::vector<ParameterSlice> slices) {
  Parameter& parameter = declare_fused(std::move(slices), 1, Decay::kNo);
  parameter.shape.pop_back();
  return parameter;
}

void ParameterTable::allocate(at::ScalarType storage, at::ScalarType compute, at::Device device,
                              std::optional<uint64_t> seed) {
  const auto group_of = [](const Parameter& p) { return p.decay == Decay::kYes ? 0 : 1; };
  const int64_t step = kAlignment / static_cast<int64_t>(c10::elementSize(compute));
  std::array<int64_t, 2> sizes{};
  for (Parameter& parameter : parameters_) {
    int64_t& size = sizes[group_of(parameter)];
    parameter.offset = size;
    size += (parameter.count() + step - 1) / step * step;
  }
  const auto options = at::TensorOptions().dtype(storage).device(device);
  groups_.clear();
  for (const Decay decay : {Decay::kYes, Decay::kNo}) {
    const int64_t size = sizes[groups_.size()];
    FlatGroup& group = groups_.emplace_back();
    group.decay = decay;
    group.value = zeros(size, options);
    group.grad = untouched_zeros(size, options);
    // Vectors (norms, queries, scales) always work in the storage type.
    if (compute != storage && decay == Decay::kYes) {
      group.compute = zeros(size, options.dtype(compute));
    }
  }
  for (Parameter& parameter : parameters_) {
    FlatGroup& group = groups_[group_of(parameter)];
    parameter.value = parameter.view(group.value).detach();
    if (seed) {
      for (const ParameterSlice& slice : parameter.slices) {
        fill(slice, *seed, parameter.rows(slice, parameter.value));
      }
    }
    parameter.value.set_requires_grad(true);
    parameter.value.mutable_grad() = parameter.view(group.grad);
    parameter.compute =
        group.compute.defined() ? parameter.view(group.compute).detach() : parameter.value;
  }
  if (seed) refresh_compute();
}

void ParameterTable::refresh_compute() {
  const at::NoGradGuard no_grad;
  for (FlatGroup& group : groups_) {
    if (group.compute.defined()) group.compute.copy_(group.value);
  }
}

void ParameterTable::zero_grad() {
  for (FlatGroup& group : groups_) group.grad.zero_();
}

int64_t ParameterTable::count() const {
  int64_t sum = 0;
  for (const Parameter& parameter : parameters_) sum += parameter.count();
  return sum;
}

}  // namespace wavroute
