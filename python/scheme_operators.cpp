// The registry of schemes for Python: what they are called, their options and their parameters.
#include <torch/library.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <tuple>
#include <variant>
#include <vector>

#include "errors.h"
#include "parameter_values.h"
#include "residual/options_json.h"
#include "wavroute/residual.h"

namespace wavroute::python {
namespace {

using Json = nlohmann::ordered_json;

Json option_json(const OptionSpec& spec) {
  constexpr const char* kTypes[] = {"bool", "int", "float", "str", "list[int]", "list[str]"};
  Json entry = {{"name", spec.name},
                {"type", kTypes[static_cast<size_t>(spec.type)]},
                {"doc", spec.doc},
                {"auto", spec.accepts_auto},
                {"choices", spec.choices}};
  std::visit([&](const auto& value) { entry["default"] = value; }, spec.default_value);
  return entry;
}

// wavroute::scheme_catalog() -> str: JSON, [{"name", "summary", "options": [{"name", "type",
// "doc", "auto", "choices", "default"}]}], in the registry's order.
std::string scheme_catalog_json() {
  Json all = Json::array();
  for (const SchemeInfo& scheme : residual_schemes()) {
    Json options = Json::array();
    for (const OptionSpec& spec : scheme.options) options.push_back(option_json(spec));
    all.push_back({{"name", scheme.name}, {"summary", scheme.summary}, {"options", options}});
  }
  return all.dump();
}

// wavroute::scheme_parameters: the parameters of a scheme under their checkpoint names, with the
// values that `seed` gives them, and JSON: {"names", "decay", "options" (all of them, resolved),
// "norms", "block_length"}. `residual`: JSON, {"scheme": name, option: value, ...}.
std::tuple<std::string, std::vector<at::Tensor>> scheme_parameters(const std::string& residual,
                                                                   int64_t layers, int64_t width,
                                                                   double eps, int64_t seed) {
  return translated([&] {
    const auto [name, options] =
        residual_from_json(nlohmann::json::parse(residual), "the arguments");
    if (layers < 1) throw expected("at least 1 layer", layers);
    if (width < 1) throw expected("a width of at least 1", width);
    const auto scheme = find_scheme(name).create(options, {layers, width}, eps);
    ParameterTable table;
    scheme->declare(table);
    table.allocate(at::kFloat, at::kFloat, at::kCPU, static_cast<uint64_t>(seed));
    NamedValues values = values_of(table);
    Json description = {{"names", values.names},
                        {"decay", values.decay},
                        {"options", residual_to_json(name, scheme->options({}))},
                        {"norms", scheme->has_sublayer_norms()},
                        {"block_length", scheme->block_length()}};
    description["options"].erase("scheme");
    return std::tuple(description.dump(), std::move(values.values));
  });
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(wavroute, m) {
  m.def("scheme_catalog() -> str", TORCH_FN(scheme_catalog_json));
  m.def(
      "scheme_parameters(str residual, int layers, int width, float eps, int seed) -> "
      "(str description, Tensor[] values)",
      TORCH_FN(scheme_parameters));
}

}  // namespace wavroute::python
