#include "model/program_choice.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "io/file.h"
#include "io/json_text.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

constexpr const char* kKind = "wavroute program predictor";
constexpr int64_t kFormat = 1;

at::Tensor doubles(const std::vector<double>& values) { return at::tensor(values, at::kDouble); }

std::vector<double> values_of(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.contiguous().flatten();
  const double* first = flat.const_data_ptr<double>();
  return {first, first + flat.numel()};
}

// Reads the fields of a predictor's file.
class Reader {
 public:
  Reader(const nlohmann::json& object, const std::filesystem::path& path)
      : object_(object), path_(path) {}

  [[noreturn]] void fail(const std::string& what, const std::string& given) const {
    throw expected(what, given, "in " + path_.string(), "wavroute program train makes such a file");
  }
  const nlohmann::json& field(const char* key) const {
    if (!object_.is_object() || !object_.contains(key)) {
      fail(fmt::format("a layer program predictor with \"{}\"", key), "none");
    }
    return object_.at(key);
  }
  [[nodiscard]] int64_t integer(const char* key) const {
    const auto value = json_integer(field(key));
    if (!value) fail(fmt::format("an integer as \"{}\"", key), json_excerpt(field(key)));
    return *value;
  }
  // `count` finite numbers.
  [[nodiscard]] std::vector<double> numbers(const char* key, size_t count) const {
    const nlohmann::json& list = field(key);
    const bool fits =
        list.is_array() && list.size() == count &&
        std::ranges::all_of(list, [](const nlohmann::json& x) { return x.is_number(); });
    if (!fits) fail(fmt::format("{} numbers as \"{}\"", count, key), json_excerpt(list));
    return list.get<std::vector<double>>();
  }

 private:
  const nlohmann::json& object_;
  const std::filesystem::path& path_;
};

std::vector<LayerProgram> read_programs(const Reader& reader, int64_t layers) {
  const nlohmann::json& list = reader.field("programs");
  if (!list.is_array() || list.empty()) reader.fail("a list of programs", json_excerpt(list));
  std::vector<LayerProgram> programs;
  for (const nlohmann::json& text : list) {
    if (!text.is_string()) reader.fail("a program as text", json_excerpt(text));
    programs.push_back(LayerProgram::parse(text.get<std::string>(), layers));
  }
  return programs;
}

}  // namespace

at::Tensor prompt_features(const Decoder& model, const std::vector<int64_t>& ids, int64_t prompt) {
  const at::NoGradGuard no_grad;
  const auto count = std::min<int64_t>(std::ssize(ids), prompt);
  const at::Tensor rows =
      at::tensor(std::vector<int64_t>(ids.begin(), ids.begin() + count), at::kLong);
  return model.embedding()
      .value.index_select(0, rows.to(model.device()))
      .to(at::kDouble)
      .mean(0)
      .cpu();
}

size_t ProgramChoice::choose(const at::Tensor& features) const {
  const at::Tensor x = (features - parts_.mean) / parts_.scale;
  const std::vector<double> losses = values_of(at::mv(parts_.weights, x) + parts_.bias);
  size_t best = 0;
  double least = 0.0;
  for (size_t p = 0; p < losses.size(); ++p) {
    const double cost =
        losses[p] + parts_.price * static_cast<double>(parts_.programs[p].layers().size());
    if (p == 0 || cost < least) best = p, least = cost;
  }
  return best;
}

ProgramChoice ProgramChoice::read(const std::filesystem::path& path, const Decoder& model,
                                  const std::string& tokenizer_hash) {
  const nlohmann::json object = read_json(path);
  const Reader reader(object, path);
  if (reader.field("kind") != kKind) {
    reader.fail("a layer program predictor", json_excerpt(reader.field("kind")));
  }
  check_format(object, kFormat, "a layer program predictor", path.string());
  const int64_t d = model.spec().model.width;
  Parts parts;
  parts.layers = reader.integer("layers");
  parts.tokenizer = reader.field("tokenizer").is_string() ? object.at("tokenizer") : "";
  if (parts.layers != model.spec().model.layers || reader.integer("width") != d ||
      parts.tokenizer != tokenizer_hash) {
    throw expected(
        fmt::format("a predictor for this model ({} layers of width {})", model.spec().model.layers,
                    d),
        fmt::format("one for {} layers of width {}{}", parts.layers, reader.integer("width"),
                    parts.tokenizer != tokenizer_hash ? ", with another tokenizer" : ""),
        "in " + path.string(), "wavroute program train makes one for this model");
  }
  parts.prompt = reader.integer("prompt");
  if (parts.prompt < 1) reader.fail("a prompt of at least one token", fmt::to_string(parts.prompt));
  parts.programs = read_programs(reader, parts.layers);
  const size_t n = parts.programs.size(), width = static_cast<size_t>(d);
  parts.mean = doubles(reader.numbers("mean", width));
  parts.scale = doubles(reader.numbers("scale", width));
  parts.weights =
      doubles(reader.numbers("weights", n * width)).view({std::ssize(parts.programs), d});
  parts.bias = doubles(reader.numbers("bias", n));
  const nlohmann::json& price = reader.field("price");
  if (!price.is_number()) reader.fail("a number as \"price\"", json_excerpt(price));
  parts.price = price.get<double>();
  if (!parts.scale.gt(0.0).all().item<bool>()) reader.fail("a scale above 0", "another");
  return ProgramChoice(std::move(parts));
}

void ProgramChoice::write(const std::filesystem::path& path) const {
  nlohmann::ordered_json programs = nlohmann::ordered_json::array();
  for (const LayerProgram& program : parts_.programs) programs.push_back(program.text());
  const nlohmann::ordered_json object = {{"kind", kKind},
                                         {"format", kFormat},
                                         {"layers", parts_.layers},
                                         {"width", parts_.mean.numel()},
                                         {"tokenizer", parts_.tokenizer},
                                         {"prompt", parts_.prompt},
                                         {"price", parts_.price},
                                         {"programs", programs},
                                         {"bias", values_of(parts_.bias)},
                                         {"mean", values_of(parts_.mean)},
                                         {"scale", values_of(parts_.scale)},
                                         {"weights", values_of(parts_.weights)}};
  write_file_atomic(path, object.dump() + "\n");
}

}  // namespace wavroute
