#include "config/print.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>
#include <variant>

#include "config/literal.h"
#include "config/rope_scaling.h"

namespace wavroute {
namespace {

using Comment = std::function<std::string(const Setting&)>;

// The settings under their section headers, then the variants. `comment` may be empty.
std::string render(const Config& config, const std::vector<Setting>& all, const Comment& comment) {
  std::string text, section;
  for (const Setting& setting : all) {
    if (setting.section == "compare" && setting.key.starts_with("variant.")) continue;
    if (setting.section != section) text += fmt::format("\n[{}]\n", setting.section);
    section = setting.section;
    const std::string line = fmt::format("{} = {}", setting.key, setting.value);
    text += comment ? fmt::format("{:<38}  # {}\n", line, comment(setting)) : line + "\n";
  }
  for (const CompareVariant& variant : config.compare.variants) {
    text += fmt::format("\n[[compare.variant]]\nlabel = {}\n", literal(variant.label));
    for (const std::string& override_text : variant.overrides) {
      const Assignment a = parse_override(override_text, "override ", "--set");
      text += fmt::format("{} = {}\n", a.dotted_key(), literal(a.value));
    }
  }
  return text;
}

std::map<std::string, std::string> by_key(const std::vector<Setting>& all) {
  std::map<std::string, std::string> result;
  for (const Setting& setting : all) result[dotted(setting.section, setting.key)] = setting.value;
  return result;
}

// Adds the options of the scheme that were not given after those that were.
void add_scheme_defaults(std::vector<Setting>& all, const Config& config,
                         const SchemeOptions& scheme) {
  auto at = std::find_if(all.begin(), all.end(),
                         [](const Setting& setting) { return setting.section == "data"; });
  for (const OptionSpec& spec : scheme.options) {
    if (config.residual.options.contains(spec.name)) continue;
    at = all.insert(at, {"residual", spec.name, literal(spec.default_value)}) + 1;
  }
}

std::string slot_text(const ChoiceSlot& slot) { return literal(slot.word()); }

template <typename Value>
std::string slot_text(const Value* slot) {
  return literal(*slot);
}

}  // namespace

std::vector<Setting> settings(const Config& config) {
  std::vector<Setting> result;
  Config copy = config;  // slots point into a mutable Config
  for (const Field& field : fields()) {
    std::string value =
        std::visit([](const auto& slot) { return slot_text(slot); }, field.slot(copy));
    result.push_back({field.section, field.key, std::move(value)});
    if (field.section != "residual") continue;
    for (const auto& [key, option] : config.residual.options) {
      result.push_back({"residual", key, literal(option)});
    }
  }
  for (const CompareVariant& variant : config.compare.variants) {
    result.push_back({"compare", "variant." + variant.label, literal(variant.overrides)});
  }
  return result;
}

std::string to_toml(const Config& config) { return render(config, settings(config), {}); }

std::string show_config(const LoadedConfig& loaded, const SchemeCatalog& catalog) {
  std::vector<Setting> all = settings(loaded.config);
  const std::string& scheme_name = loaded.config.residual.scheme;
  if (const SchemeOptions* scheme = find_scheme(catalog, scheme_name)) {
    add_scheme_defaults(all, loaded.config, *scheme);
  }
  return render(loaded.config, all, [&](const Setting& setting) {
    const auto origin = loaded.origins.find(dotted(setting.section, setting.key));
    return origin == loaded.origins.end() ? "default of " + scheme_name : origin->second;
  });
}

std::vector<std::string> changed_keys(const Config& a, const Config& b) {
  const auto settings_a = settings(a), settings_b = settings(b);
  const auto values_a = by_key(settings_a), values_b = by_key(settings_b);
  std::vector<std::string> changed;
  const auto add_if_changed = [&](const Setting& setting) {
    const std::string key = dotted(setting.section, setting.key);
    const auto in_a = values_a.find(key), in_b = values_b.find(key);
    const bool equal =
        in_a != values_a.end() && in_b != values_b.end() && in_a->second == in_b->second;
    const bool listed = std::find(changed.begin(), changed.end(), key) != changed.end();
    if (!equal && !listed) changed.push_back(key);
  };
  std::for_each(settings_a.begin(), settings_a.end(), add_if_changed);
  std::for_each(settings_b.begin(), settings_b.end(), add_if_changed);
  return changed;
}

}  // namespace wavroute
