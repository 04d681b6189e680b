// Models, their files and tokenizers for Python. Everything about a model that Python computes with
// comes from here: sizes, names, initial values, the frequencies of the rotary embedding.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "config/llama_config.h"
#include "config/rope_scaling.h"
#include "errors.h"
#include "inspect/inspection.h"
#include "io/run_folder.h"
#include "model/model_folder.h"
#include "parameter_values.h"
#include "residual/options_json.h"
#include "wavroute/decoder.h"
#include "wavroute/tokenizer.h"

namespace wavroute::python {
namespace {

using Json = nlohmann::json;
using Described = std::tuple<std::string, std::vector<at::Tensor>>;

constexpr char kWhere[] = "the configuration";

DecoderSpec spec_of(const std::string& config) {
  Json object = Json::parse(config);
  DecoderSpec spec;
  if (const auto residual = object.find("residual"); residual != object.end()) {
    Json options = *residual;
    if (options.is_object()) options.erase("format");  // of the file, no option
    std::tie(spec.scheme, spec.options) = residual_from_json(options, kWhere);
    object.erase("residual");
  }
  object.erase("model_type");
  const LlamaConfig llama = read_llama_config(object, kWhere);
  spec.model = llama.model;
  spec.vocab_size = llama.vocab_size;
  return spec;
}

std::vector<double> rope_frequencies(const ModelConfig& m) {
  const auto width = static_cast<double>(m.head_width());
  std::vector<double> frequencies;
  for (int64_t i = 0; 2 * i < m.head_width(); ++i) {
    frequencies.push_back(std::pow(m.rope_theta, -2.0 * static_cast<double>(i) / width));
  }
  scale_frequencies(frequencies, m.rope_theta, m.rope_scaling);
  return frequencies;
}

Described describe(const Decoder& model, const std::string& folder) {
  const ModelConfig& m = model.spec().model;
  NamedValues values = values_of(model.parameters());
  std::vector<int64_t> stored;
  for (int64_t i = 0; i < m.layers; ++i) stored.push_back(model.residual().stored_layer(i));
  const Json description = {{"config", model_config(model, {})},
                            {"folder", folder},
                            {"names", values.names},
                            {"decay", values.decay},
                            {"norms", model.residual().has_sublayer_norms()},
                            {"stored_layers", stored},
                            {"attention_bias", m.attention_bias},
                            {"head_width", m.head_width()},
                            {"rope_frequencies", rope_frequencies(m)},
                            {"rope_scale", attention_factor(m.rope_scaling)}};
  return {description.dump(), std::move(values.values)};
}

// wavroute::decoder_parameters: of the model that a config.json describes, with the values that a
// run of this seed starts with.
Described decoder_parameters(const std::string& config, int64_t seed) {
  return translated([&] {
    return describe(
        Decoder(spec_of(config), Precision::kFp32, at::kCPU, static_cast<uint64_t>(seed)), "");
  });
}

// wavroute::load_decoder: the model of a run folder (`which`: "" for its newest checkpoint, "best"
// or a step), of a checkpoint folder or of a Hugging Face folder.
Described load_decoder(const std::string& run, const std::string& which) {
  return translated([&] {
    Described result;
    read_run_folder(run, which, {}, [&](const std::filesystem::path& folder) {
      const auto model = load_model(folder, Precision::kFp32, at::kCPU);
      result = describe(*model, folder.string());
    });
    return result;
  });
}

// Stands in where a model has no tokenizer: an id is no text.
class NoText final : public Tokenizer {
 public:
  explicit NoText(int64_t size) : size_(size) {}
  [[nodiscard]] std::string_view name() const noexcept override { return "none"; }
  [[nodiscard]] int64_t vocab_size() const noexcept override { return size_; }
  [[nodiscard]] std::string_view token_bytes(uint32_t) const override { return {}; }
  [[nodiscard]] std::vector<uint32_t> encode(std::string_view, std::string_view,
                                             uint64_t) const override {
    return {};
  }
  [[nodiscard]] std::string to_json() const override { return "{}"; }

 private:
  int64_t size_;
};

// A file's tokenizer, read once.
std::shared_ptr<const Tokenizer> tokenizer_of(const std::string& path) {
  static std::mutex mutex;
  static std::map<std::string, std::shared_ptr<const Tokenizer>> all;
  const std::lock_guard lock(mutex);
  std::shared_ptr<const Tokenizer>& tokenizer = all[path];
  if (tokenizer == nullptr) tokenizer = load_tokenizer(path);
  return tokenizer;
}

std::unique_ptr<Decoder> model_with(const std::string& config, const std::string& names,
                                    at::TensorList values) {
  auto model = std::make_unique<Decoder>(spec_of(config), Precision::kFp32, at::kCPU);
  model->allocate(std::nullopt);
  std::map<std::string, at::Tensor> by_name;
  size_t i = 0;
  for (const Json& name : Json::parse(names)) by_name[name] = values[i++];
  const at::NoGradGuard no_grad;
  for (Parameter& parameter : model->parameters().parameters()) {
    for (const ParameterSlice& slice : parameter.slices) {
      const auto found = by_name.find(slice.name);
      if (found == by_name.end()) throw expected("the parameter " + slice.name, "none");
      parameter.rows(slice, parameter.value).copy_(found->second);
    }
  }
  model->parameters().refresh_compute();
  return model;
}

// wavroute::inspect_decoder: what `wavroute inspect --json` computes, over rows of ids [B, T + 1]
// int64, each a window of its own. `names`: JSON, those of the values. `tokenizer`: a path, "" for
// none.
std::string inspect_decoder(const std::string& config, const std::string& names,
                            at::TensorList values, const at::Tensor& ids_in,
                            const std::string& tokenizer) {
  return translated([&] {
    const auto model = model_with(config, names, values);
    const at::Tensor ids = ids_in.to(at::kInt).contiguous();
    const int64_t length = ids.size(1), vocab = model->spec().vocab_size;
    std::vector<EvalWindows> rows;
    std::vector<int64_t> counts(static_cast<size_t>(vocab));
    for (int64_t b = 0; b < ids.size(0); ++b) {
      const std::span<const int32_t> row(ids.const_data_ptr<int32_t>() + b * length,
                                         static_cast<size_t>(length));
      const TokenView tokens(nullptr, std::as_bytes(row), 4, vocab, "the batch");
      tokens.check_all();
      rows.emplace_back(tokens, length - 1, /*eval_tokens=*/0);
      count_ids(rows.back(), counts);
    }
    const NoText none(vocab);
    const std::shared_ptr<const Tokenizer> own =
        tokenizer.empty() ? nullptr : tokenizer_of(tokenizer);
    const TokenGroups groups(own ? *own : none, counts, length - 1);
    std::optional<Inspection> all;
    for (const EvalWindows& row : rows) {
      const Inspection one = inspect(*model, row, groups, {});
      if (all) {
        all->add(one);
      } else {
        all = one;
      }
    }
    return to_json(*all).dump();
  });
}

// ---- tokenizers
// ----------------------------------------------------------------------------------

int64_t tokenizer_size(const std::string& path) {
  return translated([&] { return tokenizer_of(path)->vocab_size(); });
}

std::vector<int64_t> tokenizer_encode(const std::string& path, const std::string& text) {
  return translated([&] {
    const std::vector<uint32_t> ids = tokenizer_of(path)->encode(text);
    return std::vector<int64_t>(ids.begin(), ids.end());
  });
}

// The bytes, uint8: those of any ids need not be UTF-8.
at::Tensor tokenizer_decode(const std::string& path, at::IntArrayRef ids) {
  return translated([&] {
    const std::vector<uint32_t> narrow(ids.begin(), ids.end());
    const std::string bytes = tokenizer_of(path)->decode(narrow);
    at::Tensor result = at::empty({static_cast<int64_t>(bytes.size())}, at::kByte);
    if (!bytes.empty()) std::memcpy(result.mutable_data_ptr(), bytes.data(), bytes.size());
    return result;
  });
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(wavroute, m) {
  m.def("decoder_parameters(str config, int seed) -> (str description, Tensor[] values)",
        TORCH_FN(decoder_parameters));
  m.def("load_decoder(str run, str which) -> (str description, Tensor[] values)",
        TORCH_FN(load_decoder));
  m.def("inspect_decoder(str config, str names, Tensor[] values, Tensor ids, str tokenizer) -> str",
        TORCH_FN(inspect_decoder));
  m.def("tokenizer_size(str path) -> int", TORCH_FN(tokenizer_size));
  m.def("tokenizer_encode(str path, str text) -> int[]", TORCH_FN(tokenizer_encode));
  m.def("tokenizer_decode(str path, int[] ids) -> Tensor", TORCH_FN(tokenizer_decode));
}

}  // namespace wavroute::python
