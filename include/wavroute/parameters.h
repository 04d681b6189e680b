// The parameters of a model: names, shapes, initial values, and the flat buffers they live in.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <vector>

namespace wavroute {

// Weight decay applies to matrices alone (method.md section 8).
enum class Decay { kYes, kNo };

// How a fresh parameter is filled.
struct Init {
  double constant = 0.0;
  double stddev = 0.0;  // > 0: plus N(0, stddev), keyed by the seed and the checkpoint name
  // Every number of the parameter in order, in place of the constant; empty: they are all the same.
  std::vector<double> values = {};

  // What element `i` of the parameter starts at, but for the noise.
  [[nodiscard]] double center(int64_t i) const {
    return values.empty() ? constant : values[static_cast<size_t>(i)];
  }
};

// A run of rows of a parameter that has a name of its own in a checkpoint: the query, key and
// value projections are slices of one fused matrix.
struct ParameterSlice {
  std::string name;
  int64_t first_row = 0;
  int64_t rows = 0;
  Init init;
};

// One tensor of the model. `value` and its gradient are views of the flat buffers of its decay
// group; where the compute type is narrower, `compute` is a view of a flat copy in that type.
struct Parameter {
  std::vector<int64_t> shape;
  Decay decay = Decay::kNo;
  std::vector<ParameterSlice> slices;  // at least one; cover the rows in order
  int64_t offset = 0;                  // in the buffers of its group, in elements
  at::Tensor value;                    // a leaf; its grad() is always defined
  at::Tensor compute;  // what a matrix product multiplies; == value if the types agree
  // In the blocks of q8_0, where a model was quantised for generation: [rows, columns] int8, and
  // [rows, columns / 32] the bits of fp16. They take the place of `compute`.
  at::Tensor quants, scales;

  // The shape of a slice in a checkpoint.
  [[nodiscard]] std::vector<int64_t> shape_of(const ParameterSlice& slice) const;
  // The rows of `whole` (value, a gradient, an optimizer state) that belong to `slice`.
  [[nodiscard]] at::Tensor rows(const ParameterSlice& slice, const at::Tensor& whole) const;
  // The part of `flat` (a buffer shaped like its group's) that belongs to this parameter.
  [[nodiscard]] at::Tensor view(const at::Tensor& flat) const;
  [[nodiscard]] int64_t count() const;
};

// Parameters of one decay group, end to end in one buffer; every parameter starts at a multiple
// of 64 bytes. The gaps are zero and stay zero.
struct FlatGroup {
  Decay decay = Decay::kNo;
  at::Tensor value, grad;  // [n] storage type
  at::Tensor compute;      // [n] compute type; undefined where it equals the storage type
};

class ParameterTable {
 public:
  // Declares a parameter; the reference stays valid. Only before allocate().
  Parameter& declare(const std::string& name, std::vector<int64_t> shape, Decay decay, Init init);
  // A matrix [sum of rows, columns] that a checkpoint stores as several.
  Parameter& declare_fused(std::vector<ParameterSlice> slices, int64_t columns, Decay decay);
  // A vector that a checkpoint stores as several; without weight decay.
  Parameter& declare_fused_vector(std::vector<ParameterSlice> slices);

  // Makes the buffers and fills them from `seed`: a parameter's values depend on the seed and its
  // checkpoint name alone, so schemes that share a parameter share its values. Zeros without a
  // seed.
  void allocate(at::ScalarType storage, at::ScalarType compute, at::Device device,
                std::optional<uint64_t> seed);

  // Copies the values into their compute type. Call it after every change of a value.
  void refresh_compute();
  void zero_grad();

  [[nodiscard]] std::deque<Parameter>& parameters() { return parameters_; }
  [[nodiscard]] const std::deque<Parameter>& parameters() const { return parameters_; }
  [[nodiscard]] std::vector<FlatGroup>& groups() { return groups_; }
  [[nodiscard]] const std::vector<FlatGroup>& groups() const { return groups_; }
  // Number of trained scalars, gaps not counted.
  [[nodiscard]] int64_t count() const;

 private:
  std::deque<Parameter> parameters_;
  std::vector<FlatGroup> groups_;  // decayed, not decayed
};

}  // namespace wavroute
