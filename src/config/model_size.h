// What sizes and constants a model can have: one check for a configuration, for the config.json of
// a checkpoint, and for the decoder itself, made before anything of these sizes is allocated.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "wavroute/config.h"

namespace wavroute {

// The names of the sizes where they were given.
struct ModelKeys {
  const char *layers, *width, *heads, *kv_heads, *head_dim, *hidden, *context, *vocab_size,
      *rms_norm_eps, *rope_theta, *rope_scaling;
};

inline constexpr ModelKeys kConfigurationKeys = {
    "model.layers",       "model.width",      "model.heads",       "model.kv_heads",
    "model.head_dim",     "model.hidden",     "model.context",     "the vocabulary",
    "model.rms_norm_eps", "model.rope_theta", "model.rope_scaling"};
inline constexpr ModelKeys kHuggingFaceKeys = {
    "num_hidden_layers", "hidden_size",       "num_attention_heads",     "num_key_value_heads",
    "head_dim",          "intermediate_size", "max_position_embeddings", "vocab_size",
    "rms_norm_eps",      "rope_theta",        "rope_parameters"};

struct ModelFault {
  std::vector<std::string> keys;  // which sizes are at fault, the likeliest first
  std::string expected, given, hint;
};

// Why no model can have these sizes; nothing where one can. kv_heads and hidden may be 0, as in a
// configuration: heads and 4 width; so may head_dim: width / heads.
[[nodiscard]] std::optional<ModelFault> find_model_fault(const ModelConfig& model,
                                                         int64_t vocab_size, const ModelKeys& keys);

}  // namespace wavroute
