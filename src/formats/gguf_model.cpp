// A Llama of a GGUF file: the keys "llama.*", and the tensors.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/printable.h"
#include "config/rope_scaling.h"
#include "data/gguf_tokenizer.h"
#include "formats/foreign_model.h"
#include "formats/gguf_names.h"
#include "formats/rotary_rows.h"
#include "io/gguf.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

constexpr const char* kRopeFactors = "rope_freqs.weight";
constexpr double kTolerance = 1e-4;

// Keys that are read, and those without an effect on the logits.
constexpr std::string_view kKnown[] = {"llama.block_count",
                                       "llama.embedding_length",
                                       "llama.attention.head_count",
                                       "llama.attention.head_count_kv",
                                       "llama.feed_forward_length",
                                       "llama.context_length",
                                       "llama.attention.layer_norm_rms_epsilon",
                                       "llama.attention.key_length",
                                       "llama.attention.value_length",
                                       "llama.attention.causal",
                                       "llama.rope.freq_base",
                                       "llama.rope.dimension_count",
                                       "llama.rope.scale_linear",
                                       "llama.rope.scaling.type",
                                       "llama.rope.scaling.factor",
                                       "llama.rope.scaling.original_context_length",
                                       "llama.rope.scaling.attn_factor",
                                       "llama.rope.scaling.yarn_beta_fast",
                                       "llama.rope.scaling.yarn_beta_slow",
                                       "llama.rope.scaling.yarn_ext_factor",
                                       "llama.rope.scaling.yarn_attn_factor",
                                       "llama.rope.scaling.finetuned",
                                       "llama.vocab_size",
                                       "llama.tensor_data_layout",
                                       "llama.pooling_type"};

// Numbers that give another function, but at 0 and at `neutral`.
struct OtherNumber {
  const char* key;
  double neutral = 0;
};
constexpr OtherNumber kOthers[] = {{"llama.attention.clamp_kqv"},
                                   {"llama.attention.max_alibi_bias"},
                                   {"llama.attention.scale"},
                                   {"llama.attention.sliding_window"},
                                   {"llama.attention.shared_kv_layers"},
                                   {"llama.attention.temperature_length"},
                                   {"llama.attention.temperature_scale"},
                                   {"llama.attn_logit_softcapping"},
                                   {"llama.final_logit_softcapping"},
                                   {"llama.router_logit_softcapping"},
                                   {"llama.logit_scale", 1},
                                   {"llama.embedding_scale", 1},
                                   {"llama.residual_scale", 1},
                                   {"llama.rope.scaling.yarn_log_multiplier"}};
constexpr std::string_view kExperts[] = {"llama.expert_count", "llama.expert_used_count"};

class Reader {
 public:
  explicit Reader(std::shared_ptr<const GgufFile> file)
      : file_(std::move(file)), where_(printable(file_->path().string())) {}

  ForeignModel read(bool with_tokenizer) {
    const std::string* architecture = file_->text("general.architecture");
    if (architecture == nullptr || *architecture != "llama") {
      throw expected("\"llama\" as general.architecture",
                     architecture == nullptr ? "nothing" : printable(*architecture),
                     fmt::format("in {}", where_), "wavroute computes Llamas");
    }
    ForeignModel result;
    result.format = "GGUF";
    ModelConfig& m = result.model;
    m.layers = required("llama.block_count");
    m.width = required("llama.embedding_length");
    m.heads = required("llama.attention.head_count");
    m.kv_heads = file_->integer("llama.attention.head_count_kv").value_or(m.heads);
    m.hidden = required("llama.feed_forward_length");
    m.context = required("llama.context_length");
    m.rms_norm_eps = file_->number("llama.attention.layer_norm_rms_epsilon").value_or(1e-5);
    m.rms_norm_eps = shortest(m.rms_norm_eps);
    m.rope_theta = shortest(file_->number("llama.rope.freq_base").value_or(10000.0));
    m.tie_embeddings = !file_->tensors().contains("output.weight");
    m.attention_bias = file_->tensors().contains("blk.0.attn_q.bias");
    result.vocab_size = shape_of("token_embd.weight", 2)[0];
    head_width(m);
    check_sizes(result, where_);  // before anything of these sizes is allocated
    refuse_others();
    m.rope_scaling = rope_scaling(m);
    check_sizes(result, where_);
    add_tensors(result);
    result.ignored = ignored();
    result.source = file_;
    GgufTokenizer tokenizer;
    if (with_tokenizer) tokenizer = read_gguf_tokenizer(*file_, result.vocab_size);
    const GgufEnds ends = read_gguf_ends(*file_, result.vocab_size);
    result.bos_id = ends.bos;
    result.eos_ids = ends.eos;
    result.tokenizer = {tokenizer.json, ends.chat_template, tokenizer.bos, tokenizer.eos};
    return result;
  }

 private:
  // Values are kept in 32 bits: 1e-05 again instead of 9.999999747378752e-06.
  static double shortest(double value) {
    const auto narrow = static_cast<float>(value);
    return static_cast<double>(narrow) == value ? std::stod(fmt::format("{}", narrow)) : value;
  }

  int64_t required(const char* key) const {
    const auto value = file_->integer(key);
    if (value && *value >= 1) return *value;
    throw expected(fmt::format("an integer of at least 1 as {}", key),
                   value ? fmt::format("{}", *value) : "nothing", fmt::format("in {}", where_));
  }

  const std::vector<int64_t>& shape_of(const std::string& name, size_t dimensions) const {
    const auto found = file_->tensors().find(name);
    if (found != file_->tensors().end() && found->second.shape.size() == dimensions) {
      return found->second.shape;
    }
    throw expected(fmt::format("tensor {} of {} dimensions", name, dimensions),
                   found == file_->tensors().end() ? "none" : "another number",
                   fmt::format("in {}", where_));
  }

  // As many numbers turn as a head has. Without the key, a head's width is a part of the model's.
  void head_width(ModelConfig& m) const {
    constexpr const char* kKey = "llama.attention.key_length";
    const bool is_given = file_->integer(kKey).has_value();
    const int64_t width = is_given ? required(kKey) : m.head_width();
    for (const char* key : {"llama.attention.value_length", "llama.rope.dimension_count"}) {
      const int64_t value = file_->integer(key).value_or(width);
      if (value == width) continue;
      throw expected(fmt::format("{} as {}, the width of a head", width, key), value,
                     fmt::format("in {}", where_), "wavroute computes heads of one width");
    }
    const bool is_part = m.width % m.heads == 0 && m.width / m.heads == width;
    if (is_given && !is_part) m.head_dim = width;
  }

  void refuse_others() const {
    for (const std::string_view key : kExperts) {
      if (file_->integer(key).value_or(0) == 0) continue;
      throw expected(fmt::format("no {}", key), *file_->integer(key), fmt::format("in {}", where_),
                     "wavroute computes no mixture of experts");
    }
    for (const auto& [key, neutral] : kOthers) {
      const double value = file_->number(key).value_or(0);
      if (value == 0 || value == neutral) continue;
      throw expected(fmt::format("no {}", key), value, fmt::format("in {}", where_),
                     "wavroute computes no such Llama");
    }
    if (!file_->flag("llama.attention.causal").value_or(true)) {
      throw expected("true as llama.attention.causal", "false", fmt::format("in {}", where_),
                     "wavroute computes models that read from left to right");
    }
  }

  std::vector<std::string> ignored() const {
    std::vector<std::string> keys;
    for (const auto& [key, value] : file_->metadata()) {
      const bool is_known = std::ranges::count(kKnown, key) > 0 ||
                            std::ranges::count(kExperts, key) > 0 ||
                            std::ranges::count(kOthers, key, &OtherNumber::key) > 0;
      if (key.starts_with("llama.") && !is_known) keys.push_back(printable(key));
    }
    return keys;
  }

  RopeScaling rope_scaling(const ModelConfig& m) const {
    RopeScaling scaling;
    const std::string* type = file_->text("llama.rope.scaling.type");
    const std::string word = type == nullptr ? "none" : *type;
    const double factor =
        shortest(file_->number("llama.rope.scaling.factor")
                     .value_or(file_->number("llama.rope.scale_linear").value_or(1)));
    if (word == "linear" || (type == nullptr && factor != 1 && factor != 0)) {
      scaling.rope_type = RopeType::kLinear;
      scaling.factor = factor;
    } else if (word == "yarn") {
      scaling.rope_type = RopeType::kYarn;
      scaling.factor = factor;
      scaling.original_max_position_embeddings =
          file_->integer("llama.rope.scaling.original_context_length").value_or(m.context);
      scaling.beta_fast = shortest(file_->number("llama.rope.scaling.yarn_beta_fast").value_or(32));
      scaling.beta_slow = shortest(file_->number("llama.rope.scaling.yarn_beta_slow").value_or(1));
      // llama.cpp multiplies its own factor by yarn's.
      const double more = shortest(file_->number("llama.rope.scaling.attn_factor").value_or(1));
      if (more != 1) scaling.attention_factor = more * attention_factor(scaling);
    } else if (word != "none") {
      throw expected("\"none\", \"linear\" or \"yarn\" as llama.rope.scaling.type", printable(word),
                     fmt::format("in {}", where_), "wavroute computes no such RoPE");
    }
    const bool is_yarn = scaling.rope_type == RopeType::kYarn;
    // How much of the frequencies is yarn's; a negative one stands for the default.
    refuse_unless("llama.rope.scaling.yarn_ext_factor", is_yarn ? 1 : 0, -1);
    refuse_unless("llama.rope.scaling.yarn_attn_factor", 1, 1);
    if (!is_yarn) refuse_unless("llama.rope.scaling.attn_factor", 1, 1);
    if (file_->tensors().contains(kRopeFactors)) scaling = llama3_scaling(m, scaling);
    return scaling;
  }

  void refuse_unless(const char* key, double neutral, double also) const {
    const double value = file_->number(key).value_or(neutral);
    if (value == neutral || value == also) return;
    throw expected(fmt::format("{} as {}", neutral, key), value, fmt::format("in {}", where_),
                   "wavroute computes no such RoPE");
  }

  // GGUF keeps what llama3's constants come to: a divisor of each frequency. The constants are
  // those that give these divisors.
  RopeScaling llama3_scaling(const ModelConfig& m, const RopeScaling& other) const {
    const int64_t width = m.head_width() / 2;
    if (other.rope_type != RopeType::kDefault || shape_of(kRopeFactors, 1)[0] != width) {
      throw expected(fmt::format("{} divisors in {} and no other scaling", width, kRopeFactors),
                     "others", fmt::format("in {}", where_));
    }
    std::vector<float> divisors(static_cast<size_t>(width));
    file_->read(kRopeFactors, divisors);
    RopeScaling scaling;
    scaling.rope_type = RopeType::kLlama3;
    scaling.factor = *std::ranges::max_element(divisors);
    if (scaling.factor == 1) return {};
    for (const int64_t original : {int64_t{8192}, int64_t{4096}, int64_t{2048}, m.context}) {
      scaling.original_max_position_embeddings = original;
      if (!find_rope_fault(scaling) && gives(scaling, m, divisors)) return scaling;
    }
    throw expected("the divisors of llama3's RoPE", "others",
                   fmt::format("in tensor {} of {}", kRopeFactors, where_),
                   "wavroute computes linear, llama3 and yarn scaling");
  }

  static bool gives(const RopeScaling& scaling, const ModelConfig& m,
                    std::span<const float> divisors) {
    std::vector<double> plain, scaled;
    plain.reserve(divisors.size());
    for (size_t i = 0; i < divisors.size(); ++i) {
      plain.push_back(
          std::pow(m.rope_theta, -static_cast<double>(i) / static_cast<double>(divisors.size())));
    }
    scaled = plain;
    scale_frequencies(scaled, m.rope_theta, scaling);
    for (size_t i = 0; i < divisors.size(); ++i) {
      const double divisor = plain[i] / scaled[i];
      if (!(std::abs(divisor - static_cast<double>(divisors[i])) <= kTolerance * divisor)) {
        return false;
      }
    }
    return true;
  }

  void add_tensors(ForeignModel& result) const {
    const ModelConfig& m = result.model;
    std::set<std::string> known = {kRopeFactors};
    for (LlamaTensor& tensor : llama_tensors(m, result.vocab_size)) {
      const std::string name = GgufNames::of(tensor.name);
      const auto found = file_->tensors().find(name);
      if (found == file_->tensors().end() || found->second.shape != tensor.shape) {
        throw expected(fmt::format("tensor {} of [{}]", name, fmt::join(tensor.shape, ",")),
                       found == file_->tensors().end()
                           ? "none"
                           : fmt::format("[{}]", fmt::join(found->second.shape, ",")),
                       fmt::format("in {}", where_), "the file is damaged, or no plain Llama's");
      }
      if (!ggml_type(found->second.type)) file_->read(name, {});  // says so
      known.insert(name);
      const bool is_rotary = GgufNames::is_rotary(tensor.name);
      const int64_t width = m.head_width();
      const int64_t columns = tensor.shape.size() > 1 ? tensor.shape[1] : 1;
      result.tensors.push_back(
          {tensor.name, std::move(tensor.shape),
           [file = file_, name, is_rotary, width, columns](std::span<float> out) {
             file->read(name, out);
             if (is_rotary) reorder_rows(out, width, columns, true);
           }});
    }
    for (const auto& [name, tensor] : file_->tensors()) {
      if (known.contains(name)) continue;
      throw expected("the tensors of a plain Llama", "besides them " + printable(name),
                     fmt::format("in {}", where_), "wavroute computes no such Llama");
    }
  }

  std::shared_ptr<const GgufFile> file_;
  std::string where_;
};

}  // namespace

ForeignModel open_gguf_model(const std::filesystem::path& file, bool with_tokenizer) {
  return Reader(std::make_shared<const GgufFile>(file)).read(with_tokenizer);
}

}  // namespace wavroute
