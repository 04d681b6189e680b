#include "formats/export_model.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>

#include "base/printable.h"
#include "config/end_tokens.h"
#include "config/llama_config.h"
#include "config/rope_scaling.h"
#include "formats/gguf_names.h"
#include "formats/rotary_rows.h"
#include "formats/tensor_values.h"
#include "io/checkpoint_names.h"
#include "io/file.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;

const TensorInfo& require(const SafetensorsFile& file, const std::string& name,
                          const std::vector<int64_t>* shape) {
  const TensorInfo* found = file.find(name);
  if (found != nullptr && is_floating(found->dtype) &&
      (shape == nullptr || found->shape == *shape)) {
    return *found;
  }
  throw expected(fmt::format("floating-point tensor {}", name),
                 found == nullptr ? "none of that name" : "another type or shape",
                 fmt::format("in {}", printable(file.path().string())),
                 "config.json and the weights must belong to the same model");
}

// The scale [1] or [d] itself.
std::vector<float> values_of(const SafetensorsFile& file, const OutputScale& scale, int64_t width) {
  if (scale.tensor.empty()) return {};
  const TensorInfo& tensor = require(file, scale.tensor, nullptr);
  std::vector<float> all(tensor.bytes.size() / dtype_size(tensor.dtype));
  to_floats(tensor, all);
  const auto d = static_cast<size_t>(width);
  const size_t first = scale.row < 0 ? 0 : static_cast<size_t>(scale.row) * d;
  const size_t count = scale.row < 0 ? all.size() : d;
  if (count > all.size() || first > all.size() - count || (count != 1 && count != d)) {
    throw expected(fmt::format("one number or {} in tensor {}", d, scale.tensor), all.size(),
                   fmt::format("in {}", printable(file.path().string())));
  }
  return {all.begin() + static_cast<std::ptrdiff_t>(first),
          all.begin() + static_cast<std::ptrdiff_t>(first + count)};
}

// Rows of `values` times a scale each; one for all.
void multiply_rows(std::span<float> values, const std::vector<float>& scale, size_t columns) {
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] *= scale.size() == 1 ? scale[0] : scale[i / columns];
  }
}

}  // namespace

ForeignModel open_as_llama(const fs::path& folder, const ModelConfig& model, int64_t vocab_size,
                           std::span<const OutputScale> scales) {
  ForeignModel result;
  result.format = "wavroute";
  result.model = model;
  result.vocab_size = vocab_size;
  const auto file = std::make_shared<const SafetensorsFile>(folder / kModelFile);
  for (LlamaTensor& tensor : llama_tensors(model, vocab_size)) {
    const TensorInfo* info = &require(*file, tensor.name, &tensor.shape);
    std::vector<float> scale;
    if (const auto sublayer = updating_sublayer(tensor.name)) {
      scale = values_of(*file, scales[static_cast<size_t>(*sublayer)], model.width);
    }
    const size_t columns = tensor.shape.size() > 1 ? static_cast<size_t>(tensor.shape[1]) : 1;
    result.tensors.push_back({tensor.name, std::move(tensor.shape),
                              [info, scale = std::move(scale), columns](std::span<float> out) {
                                to_floats(*info, out);
                                if (!scale.empty()) multiply_rows(out, scale, columns);
                              }});
  }
  result.source = file;
  result.tokenizer = read_hf_tokenizer(folder);
  for (const uint32_t id : read_end_tokens(folder)) result.eos_ids.push_back(id);
  return result;
}

// ---- GGUF ------------------------------------------------------------------------------------

namespace {

uint32_t file_type(GgmlType type) {  // llama.cpp's llama_ftype
  switch (type) {
    case GgmlType::kF16:
      return 1;
    case GgmlType::kQ8_0:
      return 7;
    case GgmlType::kBF16:
      return 32;
    default:
      return 0;
  }
}

void add_rope(GgufWriter& writer, const ModelConfig& m) {
  writer.add_u32("llama.rope.dimension_count", static_cast<uint32_t>(m.head_width()));
  writer.add_f32("llama.rope.freq_base", static_cast<float>(m.rope_theta));
  const RopeScaling& s = m.rope_scaling;
  if (s.rope_type == RopeType::kLinear || s.rope_type == RopeType::kYarn) {
    writer.add("llama.rope.scaling.type", to_string(s.rope_type));
    writer.add_f32("llama.rope.scaling.factor", static_cast<float>(s.factor));
  }
  if (s.rope_type == RopeType::kYarn) {
    writer.add_u32("llama.rope.scaling.original_context_length",
                   static_cast<uint32_t>(s.original_max_position_embeddings));
    writer.add_f32("llama.rope.scaling.yarn_beta_fast", static_cast<float>(s.beta_fast));
    writer.add_f32("llama.rope.scaling.yarn_beta_slow", static_cast<float>(s.beta_slow));
    RopeScaling plain = s;
    plain.attention_factor.reset();
    const double more = attention_factor(s) / attention_factor(plain);
    if (more != 1) writer.add_f32("llama.rope.scaling.attn_factor", static_cast<float>(more));
    if (!s.truncate) {
      throw expected("truncate = true of yarn's rope_scaling", "false", "for --format gguf",
                     "llama.cpp rounds the dimensions between which yarn's ramp runs");
    }
  }
  if (s.rope_type != RopeType::kLlama3) return;
  std::vector<double> plain, scaled;
  const auto half = static_cast<size_t>(m.head_width() / 2);
  plain.reserve(half);
  for (size_t i = 0; i < half; ++i) {
    plain.push_back(std::pow(m.rope_theta, -static_cast<double>(i) / static_cast<double>(half)));
  }
  scaled = plain;
  scale_frequencies(scaled, m.rope_theta, s);
  std::vector<float> divisors;
  divisors.reserve(half);
  for (size_t i = 0; i < half; ++i) divisors.push_back(static_cast<float>(plain[i] / scaled[i]));
  writer.add_tensor("rope_freqs.weight", GgmlType::kF32, {static_cast<int64_t>(half)},
                    [divisors] { return quantize(GgmlType::kF32, divisors); });
}

}  // namespace

void write_gguf_model(const ForeignModel& model, const std::string& name, GgmlType type,
                      const fs::path& out) {
  const ModelConfig& m = model.model;
  GgufWriter writer;
  writer.add("general.architecture", std::string("llama"));
  writer.add("general.type", std::string("model"));
  writer.add("general.name", name);
  writer.add_u32("general.file_type", file_type(type));
  if (type == GgmlType::kQ8_0) writer.add_u32("general.quantization_version", 2);
  const auto size = [&](const char* key, int64_t value) {
    writer.add_u32(key, static_cast<uint32_t>(value));
  };
  size("llama.block_count", m.layers);
  size("llama.context_length", m.context);
  size("llama.embedding_length", m.width);
  size("llama.feed_forward_length", m.hidden);
  size("llama.attention.head_count", m.heads);
  size("llama.attention.head_count_kv", m.kv_heads);
  size("llama.attention.key_length", m.head_width());
  size("llama.attention.value_length", m.head_width());
  size("llama.vocab_size", model.vocab_size);
  writer.add_f32("llama.attention.layer_norm_rms_epsilon", static_cast<float>(m.rms_norm_eps));
  add_rope(writer, m);
  add_vocabulary(writer, model);
  for (const ForeignTensor& tensor : model.tensors) {
    const bool is_matrix = tensor.shape.size() > 1;
    GgmlType own = is_matrix ? type : GgmlType::kF32;
    if (tensor.shape.back() % layout_of(own).numbers != 0) own = GgmlType::kF16;
    writer.add_tensor(GgufNames::of(tensor.name), own, tensor.shape, [&tensor, own, &m] {
      int64_t numbers = 1;
      for (const int64_t dimension : tensor.shape) numbers *= dimension;
      std::vector<float> values(static_cast<size_t>(numbers));
      tensor.read(values);
      if (GgufNames::is_rotary(tensor.name)) {
        reorder_rows(values, m.head_width(), numbers / tensor.shape[0], /*to_half_split=*/false);
      }
      return quantize(own, values);
    });
  }
  writer.write(out);
}

}  // namespace wavroute
