#include "formats/gguf_names.h"

#include <array>
#include <utility>

namespace wavroute {
namespace {

using Pair = std::pair<std::string_view, std::string_view>;

constexpr std::array kWhole = {Pair{"model.embed_tokens", "token_embd"},
                               Pair{"model.norm", "output_norm"}, Pair{"lm_head", "output"}};
constexpr std::array kOfLayer = {
    Pair{"input_layernorm", "attn_norm"},    Pair{"self_attn.q_proj", "attn_q"},
    Pair{"self_attn.k_proj", "attn_k"},      Pair{"self_attn.v_proj", "attn_v"},
    Pair{"self_attn.o_proj", "attn_output"}, Pair{"post_attention_layernorm", "ffn_norm"},
    Pair{"mlp.gate_proj", "ffn_gate"},       Pair{"mlp.up_proj", "ffn_up"},
    Pair{"mlp.down_proj", "ffn_down"}};
constexpr std::string_view kLayers = "model.layers.";

std::string_view other_name(const auto& pairs, std::string_view name) {
  for (const auto& [hugging_face, gguf] : pairs) {
    if (hugging_face == name) return gguf;
  }
  return {};
}

}  // namespace

std::string GgufNames::of(std::string_view name) {
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return {};
  const std::string_view stem = name.substr(0, dot), suffix = name.substr(dot);
  if (!stem.starts_with(kLayers)) {
    const std::string_view other = other_name(kWhole, stem);
    return other.empty() ? std::string() : std::string(other) + std::string(suffix);
  }
  const std::string_view rest = stem.substr(kLayers.size());
  const size_t end = rest.find('.');
  if (end == std::string_view::npos) return {};
  const std::string_view other = other_name(kOfLayer, rest.substr(end + 1));
  if (other.empty()) return {};
  return "blk." + std::string(rest.substr(0, end + 1)) + std::string(other) + std::string(suffix);
}

bool GgufNames::is_rotary(std::string_view name) {
  return name.find(".self_attn.q_proj.") != std::string_view::npos ||
         name.find(".self_attn.k_proj.") != std::string_view::npos;
}

}  // namespace wavroute
