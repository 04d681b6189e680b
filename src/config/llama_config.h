// The config.json of a Llama, as versions 4 and 5 of `transformers` write and read it.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "wavroute/config.h"

namespace wavroute {

struct LlamaConfig {
  ModelConfig model;  // kv_heads and hidden resolved, context = max_position_embeddings
  int64_t vocab_size = 0;
  // Keys that neither we nor the LlamaConfig of `transformers` know: they have no effect there.
  std::vector<std::string> ignored;
};

// Every key that LlamaConfig knows, in its old and new spellings, either has the effect that it has
// there, or has none on the logits, or is a UserError that names it: a value outside its range, or
// one for a function that this program does not compute. `where` names the file. "residual" and
// "model_type" are the caller's.
[[nodiscard]] LlamaConfig read_llama_config(const nlohmann::json& config, const std::string& where);

// The sublayer whose update the tensor (weight or bias) writes to the stream, attention of layer 0
// first; nothing for another tensor.
[[nodiscard]] std::optional<int64_t> updating_sublayer(const std::string& tensor);

// The config.json of a Llama of these sizes, as both versions read it, without tokens of its own.
[[nodiscard]] nlohmann::json llama_config_to_json(const ModelConfig& model, int64_t vocab_size);

}  // namespace wavroute
