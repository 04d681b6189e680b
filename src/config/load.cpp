#include "config/load.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "base/toml_bounds.h"
#include "config/presets.h"
#include "config/suggest.h"
#include "io/file.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;

// A configuration's text and where it was found.
struct ConfigText {
  std::string content;
  Place place;           // origin and where: the file as the user would name it
  std::string identity;  // equal for two names of one file
  std::string stem;
};

bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored) && !fs::is_directory(path, ignored);
}

ConfigText from_file(const fs::path& path) {
  const std::string name = path.string();
  std::error_code failed;
  const fs::path canonical = fs::weakly_canonical(path, failed);
  return {read_config_text(path), Place{name, name, path.parent_path()},
          failed ? name : canonical.string(), path.stem().string()};
}

ConfigText from_preset(const Preset& preset) {
  const std::string name = fmt::format("preset {}.toml", preset.name);
  return {std::string(preset.text), Place{name, name, {}}, name, std::string(preset.name)};
}

ConfigText find_text(const std::string& path_or_preset) {
  if (is_file(path_or_preset)) return from_file(path_or_preset);
  if (const Preset* preset = find_preset(path_or_preset)) return from_preset(*preset);
  std::vector<std::string> names;
  for (const Preset& preset : presets()) names.emplace_back(preset.name);
  throw expected("a configuration file or the name of a preset",
                 fmt::format("'{}'", path_or_preset), {},
                 suggestion(path_or_preset, names, "the presets"));
}

// What `extends` in `child` names: a file beside it, or else a preset.
ConfigText find_base(const ConfigText& child, const Node& extends) {
  const std::string where = fmt::format("{}:{}", child.place.where, extends.line);
  if (extends.string() == nullptr) {
    throw expected("a string", kind_name(extends), fmt::format("for 'extends', {}", where),
                   "one file: extends = \"base.toml\"");
  }
  const std::string& name = *extends.string();
  if (child.place.folder) {
    const fs::path path = (*child.place.folder / name).lexically_normal();
    if (is_file(path)) return from_file(path);
  }
  if (const Preset* preset = find_preset(name)) return from_preset(*preset);
  throw expected("a file to extend", fmt::format("'{}' that isn't there", name), where,
                 child.place.folder ? "the path is relative to the file that names it" : "");
}

using Layer = std::vector<Assignment>;

// The file's own layer last, those that it extends before it.
std::vector<Layer> read_layers(ConfigText text) {
  std::vector<Layer> layers;
  std::vector<std::string> chain, identities;
  for (;;) {
    chain.push_back(text.place.origin);
    identities.push_back(text.identity);
    Node document = parse_document(text.content, text.place.where);
    auto& members = std::get<Node::Table>(document.value);
    const auto extends = std::find_if(members.begin(), members.end(),
                                      [](const NodeMember& m) { return m.key == "extends"; });
    std::optional<Node> base;
    if (extends != members.end()) {
      base = std::move(extends->value);
      members.erase(extends);
    }
    layers.insert(layers.begin(), assignments_of(document, text.place));
    if (!base) return layers;
    ConfigText next = find_base(text, *base);
    if (std::find(identities.begin(), identities.end(), next.identity) != identities.end()) {
      chain.push_back(next.place.origin);
      throw expected("`extends` to come to an end",
                     fmt::format("the cycle {}", fmt::join(chain, " -> ")),
                     fmt::format("{}:{}", text.place.where, base->line));
    }
    text = std::move(next);
  }
}

Layer read_overrides(std::span<const std::string> texts, const std::string& prefix) {
  Layer layer;
  for (const std::string& text : texts) layer.push_back(parse_override(text, prefix, "--set"));
  return layer;
}

}  // namespace

std::string read_config_text(const fs::path& path) { return read_file(path, kMostTomlBytes); }

LoadedConfig load_config(const std::string& path_or_preset, std::span<const std::string> sets,
                         const SchemeCatalog& catalog, ConfigUse use) {
  const ConfigText text = find_text(path_or_preset);
  Draft draft(catalog, use);
  for (const Layer& layer : read_layers(text)) draft.apply(layer);
  draft.apply(read_overrides(sets, "--set "));

  LoadedConfig loaded;
  loaded.config = draft.finish(text.stem);
  for (const Field& field : fields()) loaded.origins[dotted(field.section, field.key)] = "default";
  for (const auto& [key, place] : draft.places()) loaded.origins[key] = place.origin;
  return loaded;
}

Config parse_config(const std::string& text, const std::string& file, const SchemeCatalog& catalog,
                    ConfigUse use) {
  Draft draft(catalog, use);
  draft.apply(assignments_of(parse_document(text, file), Place{file, file, fs::path(".")}));
  return draft.finish("");
}

Config with_overrides(const Config& config, std::span<const std::string> overrides,
                      const SchemeCatalog& catalog) {
  Draft draft(config, catalog, ConfigUse::kTrain);
  draft.apply(read_overrides(overrides, "override "));
  return draft.finish(config.name);
}

}  // namespace wavroute
