// A model of any scheme that starts from the weights of a plain one.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <vector>

#include "wavroute/decoder.h"

namespace wavroute {

// The spec of a model of `scheme` that start_from_plain can fill from a model of `plain`, which is
// prenorm or layerdrop: where the scheme needs a larger stream, a tied head becomes a matrix of its
// own. `options` are the scheme's, and get those that a start needs where they weren't given.
[[nodiscard]] DecoderSpec spec_from_plain(const DecoderSpec& plain, const std::string& scheme,
                                          Options& options);

// Fills `model`, which is allocated, from the folder of the plain model. UserError where its
// tensors are others. `scale`: the most that the start may enlarge the stream (PlainStart).
void start_from_plain(Decoder& model, const std::filesystem::path& folder, double scale);

// How large what the norms make of the probe's tokens is in the mean, sqrt(ms / (ms + eps)), a
// tensor [tokens] for each norm in order, the final one last.
[[nodiscard]] std::vector<at::Tensor> probe_norms(const Decoder& model);
// What the gains are to be multiplied by so that the norms of `model` give as much in the mean as
// those of the plain model do (`plain`: its probe_norms): the eps weighs differently in a stream of
// another size.
[[nodiscard]] std::vector<double> norm_factors(const Decoder& model,
                                               const std::vector<at::Tensor>& plain);
void scale_norms(Decoder& model, const std::vector<double>& factors);

// The logits [T, V] of a few fixed tokens, fp32, on the CPU: what two models of one vocabulary are
// compared by.
[[nodiscard]] at::Tensor probe_logits(const Decoder& model);

}  // namespace wavroute
