// How a rotary embedding's frequencies are scaled for longer contexts, as `transformers` computes
// it (modeling_rope_utils.py).
//
//   linear   f / factor
//   llama3   f / factor for wavelengths 2 pi / f beyond original / low_freq_factor, f below
//            original / high_freq_factor, and a blend of both between them
//   yarn     (arXiv 2309.00071) a ramp over the dimensions from f to f / factor, between those that
//            turn beta_fast and beta_slow times within the original context; cos and sin are
//            multiplied by attention_factor
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "wavroute/config.h"

namespace wavroute {

// Scales frequencies [w / 2], theta^(-2i / w), in place. The context is resolved: not 0.
void scale_frequencies(std::span<double> frequencies, double theta, const RopeScaling& scaling);

// What cos and sin are multiplied by.
[[nodiscard]] double attention_factor(const RopeScaling& scaling);

// Members that are 0 in a configuration get their meaning: the original context is the model's.
[[nodiscard]] RopeScaling resolved(RopeScaling scaling, int64_t context);

// What is wrong with the constants: "a factor of at least 1, given 0.5"; nothing where they serve.
struct RopeFault {
  std::string expected, given;
};
[[nodiscard]] std::optional<RopeFault> find_rope_fault(const RopeScaling& scaling);

// The one form in which it is written, as TOML: "default", or an inline table of what the type
// uses.
[[nodiscard]] std::string literal(const RopeScaling& scaling);

}  // namespace wavroute
