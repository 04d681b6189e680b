// The matrix M of a whole pass, for tests.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <vector>

#include "inspect/depth_mixing.h"
#include "inspect/layer_pass.h"
#include "tests/model/small_model.h"

namespace wavroute::testing {

// By reader and column, [B or 1, T or 1, d or 1].
using Mixing = std::vector<std::vector<at::Tensor>>;

inline Mixing mixing_of(const Decoder& model, LayerPass& pass,
                        const LayerProgram* program = nullptr) {
  Mixing mixing(pass.reads.size());
  for (size_t reader = 0; reader < mixing.size(); ++reader) mixing[reader].resize(reader + 1);
  mix_depths(model, program, {}, pass,
             [&](int64_t reader, int64_t first, const at::Tensor& weights) {
               for (int64_t j = 0; j < weights.size(0); ++j) {
                 at::Tensor& entry =
                     mixing.at(static_cast<size_t>(reader)).at(static_cast<size_t>(first + j));
                 EXPECT_FALSE(entry.defined()) << reader << ", " << first + j << " twice";
                 entry = weights[j].clone();
               }
             });
  return mixing;
}

// Its mean over tokens and channels, in double.
inline double mean_of(const at::Tensor& entry) {
  return entry.to(at::kDouble).mean().item<double>();
}

}  // namespace wavroute::testing
