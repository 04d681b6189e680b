// Checkpoints of llama2.c (github.com/karpathy/llama2.c): version 0, a header of seven integers and
// fp32 tensors, each for all layers together; and version 1, which orders them otherwise.
#include <fmt/format.h>

#include <array>
#include <cmath>
#include <cstring>
#include <map>

#include "base/printable.h"
#include "formats/export_model.h"
#include "formats/foreign_model.h"
#include "formats/rotary_rows.h"
#include "io/file.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

constexpr const char* kWanted = "a Hugging Face folder, a .gguf or a llama2.c .bin is wanted";
constexpr uint32_t kMagic = 0x616b3432;  // "ak42" of version 1 and later
constexpr uint64_t kHeader0 = 28, kHeader1 = 256;
constexpr double kEps = 1e-5, kTheta = 10000.0;  // of its code

constexpr const char* kEmbedding = "model.embed_tokens.weight";
constexpr const char* kNorm = "model.norm.weight";
constexpr const char* kHead = "lm_head.weight";
constexpr const char* kFrequencies = "";  // tables that its code no longer reads

// The order of the tensors; those without "model." or "lm_head" are of a layer.
constexpr std::array kOrder0 = {kEmbedding,
                                "input_layernorm.weight",
                                "self_attn.q_proj.weight",
                                "self_attn.k_proj.weight",
                                "self_attn.v_proj.weight",
                                "self_attn.o_proj.weight",
                                "post_attention_layernorm.weight",
                                "mlp.gate_proj.weight",
                                "mlp.down_proj.weight",
                                "mlp.up_proj.weight",
                                kNorm,
                                kFrequencies,
                                kHead};
constexpr std::array kOrder1 = {"input_layernorm.weight",
                                "post_attention_layernorm.weight",
                                kNorm,
                                kEmbedding,
                                "self_attn.q_proj.weight",
                                "self_attn.k_proj.weight",
                                "self_attn.v_proj.weight",
                                "self_attn.o_proj.weight",
                                "mlp.gate_proj.weight",
                                "mlp.down_proj.weight",
                                "mlp.up_proj.weight",
                                kHead};

// Of queries and keys, whose rows its code orders otherwise (rotary_rows.h).
bool is_rotary(const std::string& name) {
  return name.find(".q_proj.") != std::string::npos || name.find(".k_proj.") != std::string::npos;
}

class Reader {
 public:
  explicit Reader(const std::filesystem::path& path)
      : file_(std::make_shared<const MappedFile>(path)), where_(printable(path.string())) {}

  ForeignModel read() {
    if (file_->bytes().size() < kHeader0) refuse("at least 28 bytes", file_->bytes().size());
    if (static_cast<uint32_t>(integer(0)) != kMagic) {
      read_sizes(0, /*negative_means_untied=*/true);
      at_ = kHeader0;
      return tensors(kOrder0);
    }
    if (integer(4) != 1) {
      throw expected("version 0 or 1 of llama2.c's checkpoints", integer(4),
                     fmt::format("in {}", where_),
                     "export.py --version 0 of llama2.c writes one that can be read");
    }
    if (file_->bytes().size() < kHeader1) refuse("at least 256 bytes", file_->bytes().size());
    read_sizes(8, false);
    result_.model.tie_embeddings = file_->bytes()[36] != std::byte{0};
    at_ = kHeader1;
    return tensors(kOrder1);
  }

 private:
  [[noreturn]] void refuse(const std::string& what, const Quoted& given) const {
    throw expected(what, given, fmt::format("in {}", where_), kWanted);
  }

  int32_t integer(size_t at) const {
    int32_t value = 0;
    std::memcpy(&value, file_->bytes().data() + at, sizeof value);
    return value;
  }

  void read_sizes(size_t at, bool negative_means_untied) {
    ModelConfig& m = result_.model;
    m.width = integer(at);
    m.hidden = integer(at + 4);
    m.layers = integer(at + 8);
    m.heads = integer(at + 12);
    m.kv_heads = integer(at + 16);
    int64_t vocabulary = integer(at + 20);
    m.context = integer(at + 24);
    m.rms_norm_eps = kEps;
    m.rope_theta = kTheta;
    m.tie_embeddings = vocabulary > 0;
    if (negative_means_untied && vocabulary < 0) vocabulary = -vocabulary;
    result_.vocab_size = vocabulary;
    result_.format = "llama2.c";
    for (const int64_t size : {m.hidden, m.kv_heads}) {
      if (size < 1) refuse("seven sizes of a model of llama2.c", size);
    }
    check_sizes(result_, where_, kWanted);
  }

  template <size_t N>
  ForeignModel tensors(const std::array<const char*, N>& order) {
    const ModelConfig& m = result_.model;
    std::map<std::string, uint64_t> offsets;
    std::map<std::string, std::vector<int64_t>> shapes;
    for (LlamaTensor& tensor : llama_tensors(m, result_.vocab_size)) {
      shapes.emplace(tensor.name, tensor.shape);
    }
    const auto place = [&](const std::string& name) {
      uint64_t bytes = sizeof(float);
      for (const int64_t size : shapes.at(name)) bytes *= static_cast<uint64_t>(size);
      offsets[name] = at_;
      at_ += bytes;
    };
    for (const char* const item : order) {
      const std::string name = item;
      if (name == kFrequencies) {
        at_ += static_cast<uint64_t>(m.context * m.head_width()) * sizeof(float);
      } else if (name == kHead && m.tie_embeddings) {
        continue;
      } else if (name == kHead || name.starts_with("model.")) {
        place(name);
      } else {
        for (int64_t i = 0; i < m.layers; ++i) place(fmt::format("model.layers.{}.{}", i, name));
      }
    }
    if (at_ != file_->bytes().size()) {
      throw expected(fmt::format("{} bytes for a model of these sizes", at_), file_->bytes().size(),
                     fmt::format("in {}", where_),
                     "the file is cut short, or no checkpoint of llama2.c");
    }
    for (LlamaTensor& tensor : llama_tensors(m, result_.vocab_size)) {
      const uint64_t offset = offsets.at(tensor.name);
      result_.tensors.push_back(
          {tensor.name, std::move(tensor.shape),
           [file = file_, offset, rotary = is_rotary(tensor.name), m](std::span<float> out) {
             std::memcpy(out.data(), file->bytes().data() + offset, out.size_bytes());
             if (rotary) reorder_rows(out, m.head_width(), m.width, true);
           }});
    }
    // Its code ends a text at the token that begins the next.
    if (result_.vocab_size > 2) {
      result_.bos_id = 1;
      result_.eos_ids = {1, 2};
    }
    result_.source = file_;
    return std::move(result_);
  }

  std::shared_ptr<const MappedFile> file_;
  std::string where_;
  ForeignModel result_;
  uint64_t at_ = 0;
};

}  // namespace

ForeignModel open_llama2c(const std::filesystem::path& file) { return Reader(file).read(); }

namespace {

void check_for_llama2c(const ModelConfig& m) {
  const auto refuse = [](const std::string& what, const Quoted& given) {
    throw expected(what, given, "for --format llama2c",
                   "llama2.c computes nothing else; --format gguf or hf keeps it");
  };
  if (m.rope_theta != kTheta) refuse("rope_theta 10000", m.rope_theta);
  if (m.rope_scaling.rope_type != RopeType::kDefault) {
    refuse("no rope_scaling", to_string(m.rope_scaling.rope_type));
  }
  if (m.attention_bias) refuse("no attention_bias", "one");
  if (m.heads * m.head_width() != m.width) refuse("heads that fill the width", m.head_width());
}

}  // namespace

void write_llama2c_model(const ForeignModel& model, const std::filesystem::path& out) {
  const ModelConfig& m = model.model;
  check_for_llama2c(m);
  std::map<std::string, const ForeignTensor*> tensors;
  for (const ForeignTensor& tensor : model.tensors) tensors[tensor.name] = &tensor;
  AtomicFile file(out);
  std::vector<float> values;
  const auto put = [&] { file.write(std::as_bytes(std::span(values))); };
  const int64_t vocabulary = m.tie_embeddings ? model.vocab_size : -model.vocab_size;
  std::array<int32_t, 7> head{};
  const int64_t sizes[] = {m.width, m.hidden, m.layers, m.heads, m.kv_heads, vocabulary, m.context};
  for (size_t i = 0; i < head.size(); ++i) head[i] = static_cast<int32_t>(sizes[i]);
  file.write(std::as_bytes(std::span(head)));
  const auto put_tensor = [&](const std::string& name) {
    const ForeignTensor& tensor = *tensors.at(name);
    int64_t numbers = 1;
    for (const int64_t size : tensor.shape) numbers *= size;
    values.resize(static_cast<size_t>(numbers));
    tensor.read(values);
    if (is_rotary(name)) reorder_rows(values, m.head_width(), m.width, /*to_half_split=*/false);
    put();
  };
  for (const std::string name : kOrder0) {
    if (name == kFrequencies) {  // cosines, then sines, as export.py writes them
      for (const bool cosine : {true, false}) {
        values.clear();
        const int64_t half = m.head_width() / 2;
        for (int64_t i = 0; i < m.context * half; ++i) {
          const double power = static_cast<double>(i % half) / static_cast<double>(half);
          const int64_t position = i / half;
          const double angle = static_cast<double>(position) * std::pow(kTheta, -power);
          values.push_back(static_cast<float>(cosine ? std::cos(angle) : std::sin(angle)));
        }
        put();
      }
    } else if (name == kHead && m.tie_embeddings) {
      continue;
    } else if (name == kHead || name.starts_with("model.")) {
      put_tensor(name);
    } else {
      for (int64_t i = 0; i < m.layers; ++i) put_tensor(fmt::format("model.layers.{}.{}", i, name));
    }
  }
  file.commit();
}

}  // namespace wavroute
