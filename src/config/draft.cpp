#include "config/draft.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "config/literal.h"
#include "config/scheme_options.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

bool is_option(const Assignment& a) { return a.section == "residual" && a.key != "scheme"; }

// The file that a line belongs to: "base.toml" of "base.toml:12".
Place file_of(const Place& place) {
  if (place.is_command_line()) return place;
  return {place.origin.substr(0, place.origin.rfind(':')), place.where, place.folder};
}

}  // namespace

Draft::Draft(const Config& config, const SchemeCatalog& catalog, ConfigUse use)
    : catalog_(catalog), use_(use), config_(config), continued_(true) {}

void Draft::apply(std::span<const Assignment> layer) {
  const std::string text = config_.data.train;
  for (const Assignment& assignment : layer) apply_one(assignment);
  if (config_.data.train != text) forget_limit(layer);
  if (!schemes_given()) return;  // options without a scheme: checked in finish()
  for (const Assignment& assignment : layer) {
    if (!is_option(assignment)) continue;
    // A comparison may name the scheme that has it in a later layer.
    if (use_ == ConfigUse::kCompare && !known_to_schemes(assignment.key)) {
      waiting_[assignment.key] = assignment.place;
    } else {
      require_option(catalog_, schemes(), assignment.key, assignment.place);
    }
  }
}

bool Draft::known_to_schemes(const std::string& option) const {
  const auto chosen = schemes();
  return std::any_of(chosen.begin(), chosen.end(), [&](const std::string& scheme) {
    return find_option(catalog_, scheme, option) != nullptr;
  });
}

void Draft::apply_one(const Assignment& a) {
  if (is_option(a)) {
    std::vector<std::string> all;
    for (const SchemeOptions& scheme : catalog_) all.push_back(scheme.scheme);
    require_option(catalog_, all, a.key, a.place);
    config_.residual.options[a.key] = plain_option(a);
  } else if (a.section == "compare" && a.key == "variant") {
    read_variants(a);
  } else {
    assign(config_, a);
    if (a.section == "residual") require_scheme(catalog_, config_.residual.scheme, a.about());
    if (a.section == "compare" && a.key == "schemes") {
      for (const std::string& scheme : config_.compare.schemes) {
        require_scheme(catalog_, scheme, a.about());
      }
    }
  }
  places_[a.dotted_key()] = a.place;
}

// A limit belongs to the text that it was written for: another text is used whole, unless the layer
// that names it has a limit as well.
void Draft::forget_limit(std::span<const Assignment> layer) {
  const auto find = [&](std::string_view key) {
    return std::ranges::find(layer, key, &Assignment::dotted_key);
  };
  if (config_.data.max_bytes == 0 || find("data.max_bytes") != layer.end()) return;
  config_.data.max_bytes = 0;
  if (const auto train = find("data.train"); train != layer.end()) {
    Place place = train->place;
    place.origin = fmt::format("{} names another data.train", place.origin);
    places_["data.max_bytes"] = place;
  }
}

void Draft::read_variants(const Assignment& a) {
  if (a.value.array() == nullptr) {
    throw expected("tables", kind_name(a.value), a.about(),
                   "begin each variant with a line [[compare.variant]]");
  }
  std::vector<Variant> variants;
  for (const Node& node : *a.value.array()) {
    Place place = a.place;
    if (!place.is_command_line()) {
      place.origin = place.where = fmt::format("{}:{}", file_of(place).origin, node.line);
    }
    variants.push_back(read_variant(node, place));
  }
  variants_ = std::move(variants);
  config_.compare.variants.clear();
}

Draft::Variant Draft::read_variant(const Node& node, const Place& place) const {
  if (node.table() == nullptr) {
    throw expected("a table", kind_name(node),
                   fmt::format("for 'variant' in [compare], {}", place.where),
                   "begin each variant with a line [[compare.variant]]");
  }
  Variant variant = {.label = {}, .assignments = {}, .place = place};
  Node rest = node;
  auto& members = std::get<Node::Table>(rest.value);
  const auto label = std::find_if(members.begin(), members.end(),
                                  [](const NodeMember& m) { return m.key == "label"; });
  if (label == members.end() || label->value.string() == nullptr ||
      label->value.string()->empty()) {
    throw expected("a label of a variant", label == members.end() ? "none" : literal(label->value),
                   place.where, "give it a line label = \"wav, another setting\"");
  }
  variant.label = *label->value.string();
  members.erase(label);
  variant.assignments = assignments_of(rest, file_of(place));
  for (const Assignment& a : variant.assignments) {
    if (a.section.empty() || a.section == "compare") {
      throw expected("a key that a variant can change", fmt::format("'{}'", a.dotted_key()),
                     a.place.where,
                     "a variant changes the keys of one training run, as in optimizer.lr = 3e-4");
    }
  }
  return variant;
}

std::vector<std::string> Draft::schemes() const {
  std::vector<std::string> result = {config_.residual.scheme};
  if (use_ == ConfigUse::kTrain) return result;
  const auto& listed = config_.compare.schemes;
  result.insert(result.end(), listed.begin(), listed.end());
  for (const Variant& variant : variants_) {
    for (const Assignment& a : variant.assignments) {
      const bool names_one = a.section == "residual" && a.key == "scheme" && a.value.string();
      if (names_one) result.push_back(*a.value.string());
    }
  }
  std::sort(result.begin(), result.end());
  result.erase(std::unique(result.begin(), result.end()), result.end());
  return result;
}

bool Draft::schemes_given() const {
  if (continued_ || places_.contains("residual.scheme")) return true;
  return use_ == ConfigUse::kCompare && places_.contains("compare.schemes");
}

// Drops the options given for a scheme that a later layer replaced; the others get their scheme's
// types.
void Draft::settle_options() {
  const auto chosen = schemes();
  Options kept;
  for (const auto& [key, value] : config_.residual.options) {
    const std::string name = dotted("residual", key);
    const Place place = places_.contains(name) ? places_.at(name) : Place{"config", "the config"};
    bool known = false;
    for (const std::string& scheme : chosen) {
      const OptionSpec* spec = find_option(catalog_, scheme, key);
      if (spec == nullptr) continue;
      const OptionValue fitted = fit_option(value, *spec, scheme, place);
      // Two schemes may have different types for it; options_for converts again for each.
      kept[key] = use_ == ConfigUse::kTrain ? fitted : value;
      known = true;
    }
    if (known) continue;
    if (!schemes_given() || waiting_.contains(key)) require_option(catalog_, chosen, key, place);
    places_.erase(name);
  }
  config_.residual.options = std::move(kept);
}

CompareVariant Draft::checked_variant(const Variant& variant) const {
  Draft draft(config_, catalog_, ConfigUse::kTrain);
  draft.places_ = places_;
  draft.apply(variant.assignments);
  const Config changed = draft.finish(config_.name);
  CompareVariant result = {variant.label, {}};
  for (const Assignment& a : variant.assignments) {
    const Field* field = find_field(a.section, a.key);
    std::string value = literal(a.value);
    if (field != nullptr && field->is_path) {  // absolute now: the folder of the file is known
      Config copy = changed;
      value = literal(path_or_word(*field, copy));
    }
    result.overrides.push_back(a.dotted_key() + "=" + value);
  }
  return result;
}

Config Draft::finish(const std::string& default_name) {
  if (config_.name.empty() && !places_.contains("name")) config_.name = default_name;
  settle_options();
  check_consistency(config_, places_);
  if (!variants_.empty()) {
    config_.compare.variants.clear();
    std::vector<CompareVariant> checked;
    for (const Variant& variant : variants_) checked.push_back(checked_variant(variant));
    config_.compare.variants = std::move(checked);
    check_consistency(config_, places_);  // the labels
  }
  return config_;
}

}  // namespace wavroute
