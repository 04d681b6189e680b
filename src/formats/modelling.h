// The Python files with which `transformers` runs a model of any scheme.
#pragma once

#include <filesystem>
#include <span>
#include <string_view>

#include "wavroute/safetensors.h"

namespace wavroute {

struct ModellingFile {
  std::string_view name;  // "modeling_wavroute.py"
  std::string_view text;
};
[[nodiscard]] std::span<const ModellingFile> modelling_files();

// Copies a folder of ours to a new one that AutoModelForCausalLM reads with trust_remote_code:
// config.json names the files above, tensors are in `type` (F32, F16, BF16). `out` must not be
// there.
void write_modelling_folder(const std::filesystem::path& folder, const std::filesystem::path& out,
                            Dtype type);

}  // namespace wavroute
