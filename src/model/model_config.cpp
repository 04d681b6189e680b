// config.json, written and read.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <tuple>

#include "base/printable.h"
#include "config/llama_config.h"
#include "io/checkpoint_names.h"
#include "io/json_text.h"
#include "model/model_folder.h"
#include "residual/options_json.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

// The format of the object `residual`: readers of an older one would misread its constants.
constexpr int64_t kResidualFormat = 1;

[[noreturn]] void fail(const std::string& key, const std::string& expected, const Json& given,
                       const std::string& where) {
  throw wavroute::expected(
      fmt::format("{} as {}", expected, key), given.is_null() ? "nothing" : json_excerpt(given),
      fmt::format("in {}", where), "wavroute reads its own models and plain Llama models");
}

// A key's value; null where it is absent.
const Json& value_of(const Json& object, const char* key) {
  static const Json absent;
  const auto found = object.find(key);
  return found == object.end() ? absent : *found;
}

// The object `residual`: the format first, then every option that the scheme has and no other.
void read_residual(Json object, bool is_llama, const std::string& where, DecoderSpec& spec) {
  const Json format = value_of(object, "format");
  if (!format.is_null() && json_integer(format) != kResidualFormat) {
    fail("residual.format", fmt::format("{}", kResidualFormat), format, where);
  }
  object.erase("format");
  std::tie(spec.scheme, spec.options) = residual_from_json(object, where);
  try {
    const SchemeInfo& scheme = find_scheme(spec.scheme);
    for (const auto& [name, value] : spec.options) {
      if (std::ranges::count(scheme.options, name, &OptionSpec::name) > 0) continue;
      throw expected(fmt::format("an option of the residual scheme {}", spec.scheme),
                     printable(name), {},
                     "the model was written by another version, or config.json was changed");
    }
    const auto residual =
        scheme.create(spec.options, {spec.model.layers, spec.model.width}, spec.model.rms_norm_eps);
    if (is_llama && !residual->is_llama()) {
      throw expected(fmt::format("\"wavroute\" as model_type of scheme {}", spec.scheme),
                     "\"llama\"", {}, "a Llama has no such residual scheme");
    }
  } catch (const UserError& error) {
    throw UserError(fmt::format("{}, in {}", error.what(), where), error.hint());
  }
}

}  // namespace

Json model_config(const Decoder& model, const Progress& progress) {
  const ModelConfig& m = model.spec().model;
  const bool llama = model.residual().is_llama();
  Json config = llama_config_to_json(m, model.spec().vocab_size);
  config["architectures"] = {llama ? "LlamaForCausalLM" : "WavrouteForCausalLM"};
  config["model_type"] = llama ? "llama" : "wavroute";
  config["bos_token_id"] = nullptr;
  config["eos_token_id"] = nullptr;
  config["residual"] = residual_to_json(model.spec().scheme, model.residual().options(progress));
  config["residual"]["format"] = kResidualFormat;
  return config;
}

DecoderSpec read_model_config(const fs::path& folder, std::vector<std::string>* ignored) {
  const fs::path path = folder / kConfigFile;
  const std::string where = path.string();
  const Json object = read_json(path);
  if (!object.is_object()) {
    throw expected("a JSON object", json_excerpt(object), fmt::format("in {}", where),
                   "a Hugging Face folder holds a config.json that describes its model");
  }
  const Json& type = value_of(object, "model_type");
  if (type != "llama" && type != "wavroute") {
    fail("model_type", "\"llama\" or \"wavroute\"", type, where);
  }
  LlamaConfig llama = read_llama_config(object, where);
  DecoderSpec spec;
  spec.model = llama.model;
  spec.vocab_size = llama.vocab_size;
  if (const Json& residual = value_of(object, "residual"); !residual.is_null()) {
    read_residual(residual, type == "llama", where, spec);
  } else if (type == "wavroute") {
    fail("residual", "an object", residual, where);
  }
  if (ignored != nullptr) *ignored = std::move(llama.ignored);
  return spec;
}

}  // namespace wavroute
