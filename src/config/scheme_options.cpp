#include "config/scheme_options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>
#include <utility>

#include "config/literal.h"
#include "config/suggest.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

std::vector<std::string> scheme_names(const SchemeCatalog& catalog) {
  std::vector<std::string> names;
  for (const SchemeOptions& scheme : catalog) names.push_back(scheme.scheme);
  return names;
}

template <typename Item>
std::optional<OptionValue> list_of(const Node::Array& items) {
  std::vector<Item> result;
  for (const Node& item : items) {
    const Item* value = std::get_if<Item>(&item.value);
    if (value == nullptr) return std::nullopt;
    result.push_back(*value);
  }
  return result;
}

std::string_view type_name(OptionType type) {
  constexpr std::string_view kNames[] = {"true or false",      "an integer",
                                         "a number",           "a string",
                                         "a list of integers", "a list of strings"};
  return kNames[static_cast<size_t>(type)];
}

// The value converted to the type of the option, or nothing where it can't be.
std::optional<OptionValue> converted(const OptionValue& value, OptionType type) {
  const bool empty_list = value == OptionValue(std::vector<int64_t>{}) ||
                          value == OptionValue(std::vector<std::string>{});
  if (empty_list && type == OptionType::kIntList) return std::vector<int64_t>{};
  if (empty_list && type == OptionType::kStringList) return std::vector<std::string>{};
  const auto* integer = std::get_if<int64_t>(&value);
  if (integer != nullptr && type == OptionType::kFloat) return static_cast<double>(*integer);
  // OptionType lists the alternatives of OptionValue in their order.
  if (value.index() != static_cast<size_t>(type)) return std::nullopt;
  return value;
}

// The strings that the choices of an option apply to.
std::vector<std::string> words_of(const OptionValue& value) {
  if (const auto* word = std::get_if<std::string>(&value)) return {*word};
  if (const auto* words = std::get_if<std::vector<std::string>>(&value)) return *words;
  return {};
}

}  // namespace

const SchemeOptions* find_scheme(const SchemeCatalog& catalog, const std::string& scheme) {
  const auto found = std::find_if(catalog.begin(), catalog.end(),
                                  [&](const SchemeOptions& s) { return s.scheme == scheme; });
  return found == catalog.end() ? nullptr : &*found;
}

const OptionSpec* find_option(const SchemeCatalog& catalog, const std::string& scheme,
                              const std::string& option) {
  const SchemeOptions* found = find_scheme(catalog, scheme);
  if (found == nullptr) return nullptr;
  for (const OptionSpec& spec : found->options) {
    if (spec.name == option) return &spec;
  }
  return nullptr;
}

void require_scheme(const SchemeCatalog& catalog, const std::string& scheme,
                    const std::string& about) {
  if (find_scheme(catalog, scheme) != nullptr) return;
  throw expected("the name of a scheme", fmt::format("'{}'", scheme), about,
                 suggestion(scheme, scheme_names(catalog), "the schemes"));
}

OptionValue plain_option(const Assignment& a) {
  if (const auto* value = std::get_if<bool>(&a.value.value)) return *value;
  if (const auto* value = std::get_if<int64_t>(&a.value.value)) return *value;
  if (const auto* value = std::get_if<double>(&a.value.value)) {
    if (std::isfinite(*value)) return *value;
    throw expected("a finite number", *value, a.about());
  }
  if (const auto* value = a.value.string()) return *value;
  if (const auto* items = a.value.array()) {
    if (const auto integers = list_of<int64_t>(*items)) return *integers;
    if (const auto strings = list_of<std::string>(*items)) return *strings;
    throw expected("a list of integers or of strings", "another", a.about());
  }
  throw expected("a plain value", kind_name(a.value), a.about());
}

void require_option(const SchemeCatalog& catalog, std::span<const std::string> schemes,
                    const std::string& key, const Place& place) {
  std::vector<std::string> owners;              // schemes outside `schemes` that know the key
  std::vector<std::string> known = {"scheme"};  // keys that would be valid here
  for (const SchemeOptions& scheme : catalog) {
    const bool chosen = std::find(schemes.begin(), schemes.end(), scheme.scheme) != schemes.end();
    const bool has_key = find_option(catalog, scheme.scheme, key) != nullptr;
    if (has_key && chosen) return;
    if (has_key) owners.push_back(scheme.scheme);
    if (!chosen) continue;
    for (const OptionSpec& spec : scheme.options) {
      if (std::find(known.begin(), known.end(), spec.name) == known.end()) {
        known.push_back(spec.name);
      }
    }
  }
  if (owners.empty()) {
    throw expected("a key of [residual]", "'" + key + "'", place.where,
                   suggestion(key, known, "the keys of [residual] here"));
  }
  throw expected(fmt::format("an option of {} in [residual]", fmt::join(schemes, ", ")),
                 fmt::format("'{}'", key), place.where,
                 fmt::format("'{}' belongs to {}; choose that scheme or remove the key", key,
                             fmt::join(owners, ", ")));
}

OptionValue fit_option(const OptionValue& value, const OptionSpec& spec, const std::string& scheme,
                       const Place& place) {
  const std::string about =
      fmt::format("for '{}' of {} in [residual], {}", spec.name, scheme, place.where);
  if (spec.accepts_auto && value == OptionValue(std::string("auto"))) return value;
  const auto fitted = converted(value, spec.type);
  if (!fitted) {
    throw expected(
        fmt::format("{}{}", type_name(spec.type), spec.accepts_auto ? " or \"auto\"" : ""),
        literal(value), about, spec.doc.empty() ? "" : fmt::format("{}: {}", spec.name, spec.doc));
  }
  for (const std::string& word : words_of(*fitted)) {
    const auto& choices = spec.choices;
    if (choices.empty() || std::find(choices.begin(), choices.end(), word) != choices.end()) {
      continue;
    }
    throw expected(fmt::format("one of {}", fmt::join(choices, ", ")), fmt::format("'{}'", word),
                   about, suggestion(word, choices, "the choices"));
  }
  return *fitted;
}

Options options_for(const Config& config, const std::string& scheme, const SchemeCatalog& catalog) {
  require_scheme(catalog, scheme, "for the residual");
  Options result;
  const Place place = {"config", "the configuration"};
  for (const auto& [key, value] : config.residual.options) {
    const OptionSpec* spec = find_option(catalog, scheme, key);
    if (spec != nullptr) result[key] = fit_option(value, *spec, scheme, place);
  }
  return result;
}

}  // namespace wavroute
