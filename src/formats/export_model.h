// Models of ours for other programs.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "formats/foreign_model.h"
#include "io/ggml_blocks.h"
#include "io/gguf.h"

namespace wavroute {

// What the update of a sublayer is multiplied by: a tensor of the checkpoint ([1], [d], or with
// `row` a row of [N, d]); an empty name stands for one.
struct OutputScale {
  std::string tensor;
  int64_t row = -1;
};

// The model of a folder with model.safetensors as the Llama that it is once its scales, by
// sublayer, are multiplied into the output projections. UserError where a tensor is missing.
[[nodiscard]] ForeignModel open_as_llama(const std::filesystem::path& folder,
                                         const ModelConfig& model, int64_t vocab_size,
                                         std::span<const OutputScale> scales);

// Each writes a new file, tensor by tensor, that appears complete.
// Matrices in `type` (F32, F16, BF16, Q8_0); those whose rows are no whole blocks of Q8_0 in F16,
// and vectors in F32. UserError for a tokenizer that GGUF can't hold.
void write_gguf_model(const ForeignModel& model, const std::string& name, GgmlType type,
                      const std::filesystem::path& out);
// Version 0. UserError for what its code doesn't compute.
void write_llama2c_model(const ForeignModel& model, const std::filesystem::path& out);

// The keys tokenizer.*, for write_gguf_model.
void add_vocabulary(GgufWriter& writer, const ForeignModel& model);

}  // namespace wavroute
