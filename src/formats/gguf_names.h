// The names of a Llama's parts in GGUF, beside Hugging Face's.
#pragma once

#include <string>
#include <string_view>

namespace wavroute {

class GgufNames {
 public:
  // "blk.3.attn_q.weight" for "model.layers.3.self_attn.q_proj.weight"; empty for a name that GGUF
  // has no other for.
  [[nodiscard]] static std::string of(std::string_view hugging_face);
  // Whether the rows are those of queries or keys, which GGUF orders otherwise (rotary_rows.h).
  [[nodiscard]] static bool is_rotary(std::string_view hugging_face);
};

}  // namespace wavroute
