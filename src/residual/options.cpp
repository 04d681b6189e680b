#include "residual/options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "residual/options_json.h"
#include "wavroute/error.h"
#include "wavroute/residual.h"

namespace wavroute {
namespace {

const char* type_name(OptionType type) {
  switch (type) {
    case OptionType::kBool:
      return "true or false";
    case OptionType::kInt:
      return "an integer";
    case OptionType::kFloat:
      return "a number";
    case OptionType::kString:
      return "a string";
    case OptionType::kIntList:
      return "a list of integers";
    case OptionType::kStringList:
      return "a list of strings";
  }
  return "";
}

// `value` converted to the type of `spec`: an integer to a number, an empty list to any list.
OptionValue converted(const OptionValue& value, const OptionSpec& spec, const std::string& scheme) {
  if (spec.accepts_auto && value == OptionValue(std::string("auto"))) return value;
  if (spec.type == OptionType::kFloat && std::holds_alternative<int64_t>(value)) {
    return static_cast<double>(std::get<int64_t>(value));
  }
  if (spec.type == OptionType::kStringList) {
    const auto* integers = std::get_if<std::vector<int64_t>>(&value);
    if (integers != nullptr && integers->empty()) return std::vector<std::string>{};
  }
  if (value.index() != static_cast<size_t>(spec.type)) {
    throw expected(
        fmt::format("{}{}", type_name(spec.type), spec.accepts_auto ? " or \"auto\"" : ""),
        "another type", fmt::format("as residual.{} of scheme {}", spec.name, scheme));
  }
  if (const auto* word = std::get_if<std::string>(&value);
      word != nullptr && !spec.choices.empty() && std::ranges::count(spec.choices, *word) == 0) {
    throw expected(fmt::format("one of {}", fmt::join(spec.choices, ", ")), "'" + *word + "'",
                   fmt::format("as residual.{} of scheme {}", spec.name, scheme));
  }
  return value;
}

// Not a value beyond int64_t: it would become negative.
bool is_int64(const nlohmann::json& value) {
  return value.is_number_integer() &&
         !(value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{INT64_MAX});
}

OptionValue from_json(const nlohmann::json& value, const std::string& where,
                      const std::string& name) {
  if (value.is_boolean()) return value.get<bool>();
  if (is_int64(value)) return value.get<int64_t>();
  if (value.is_number()) return value.get<double>();
  if (value.is_string()) return value.get<std::string>();
  const auto all = [&](auto predicate) {
    return value.is_array() && std::all_of(value.begin(), value.end(), predicate);
  };
  if (all(is_int64)) {
    return value.get<std::vector<int64_t>>();
  }
  if (all([](const nlohmann::json& v) { return v.is_string(); })) {
    return value.get<std::vector<std::string>>();
  }
  throw expected("a value that an option can have", "one of another kind",
                 fmt::format("as residual.{} in {}", name, where));
}

}  // namespace

Options with_defaults(const Options& given, const std::vector<OptionSpec>& specs,
                      const std::string& scheme) {
  for (const auto& entry : given) {
    const std::string& name = entry.first;
    if (std::ranges::none_of(specs, [&](const OptionSpec& spec) { return spec.name == name; })) {
      throw expected("an option of residual scheme " + scheme, "'" + name + "'", {},
                     "wavroute config show lists the options of a scheme");
    }
  }
  Options complete;
  for (const OptionSpec& spec : specs) {
    const auto found = given.find(spec.name);
    complete[spec.name] =
        found == given.end() ? spec.default_value : converted(found->second, spec, scheme);
  }
  return complete;
}

nlohmann::json residual_to_json(const std::string& scheme, const Options& options) {
  nlohmann::json object = {{"scheme", scheme}};
  for (const auto& [name, value] : options) {
    std::visit([&, &key = name](const auto& v) { object[key] = v; }, value);
  }
  return object;
}

std::pair<std::string, Options> residual_from_json(const nlohmann::json& object,
                                                   const std::string& where) {
  if (!object.is_object() || !object.contains("scheme") || !object["scheme"].is_string()) {
    throw expected("an object 'residual' with a 'scheme'", "none", "in " + where);
  }
  std::pair<std::string, Options> result{object["scheme"].get<std::string>(), {}};
  for (const auto& [name, value] : object.items()) {
    if (name != "scheme") result.second[name] = from_json(value, where, name);
  }
  return result;
}

}  // namespace wavroute
