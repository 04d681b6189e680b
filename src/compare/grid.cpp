#include "compare/grid.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <string_view>

#include "base/printable.h"
#include "config/assignment.h"
#include "config/fields.h"
#include "config/load.h"
#include "config/names.h"
#include "config/print.h"
#include "config/scheme_options.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

struct Row {
  std::string label;
  Config config;  // without depth and seed
};

// Letters of any script, digits, '.', '_' and '-' alone; no hidden file, no temporary name.
std::string safe_name(const std::string& label) {
  std::string name;
  for (const char c : label) {
    const auto byte = static_cast<unsigned char>(c);
    // Names are UTF-8 by now: beyond ASCII everything stays.
    const bool keeps = std::isalnum(byte) != 0 || byte >= 0x80 || c == '.' || c == '_' || c == '-';
    if (keeps && (c != '.' || !name.empty())) {
      name += c;
    } else if (!name.empty() && name.back() != '-') {
      name += '-';
    }
  }
  return name.empty() ? "variant" : name;
}

std::vector<Row> rows_of(const Config& config, const SchemeCatalog& catalog) {
  std::vector<Row> rows;
  for (const std::string& scheme : config.compare.schemes) {
    Row row{scheme, config};
    row.config.residual.scheme = scheme;
    row.config.residual.options = options_for(config, scheme, catalog);
    rows.push_back(std::move(row));
  }
  for (const CompareVariant& variant : config.compare.variants) {
    for (const std::string& override : variant.overrides) {
      const std::string key = override.substr(0, override.find_first_of("= "));
      if (key != "model.layers" && key != "train.seed") continue;
      throw expected("a key that the grid does not set for every cell", key,
                     fmt::format("in variant '{}'", variant.label),
                     "use compare.depths and compare.seeds");
    }
    rows.push_back({variant.label, with_overrides(config, variant.overrides, catalog)});
  }
  if (rows.empty()) {
    throw expected("at least one scheme to compare", "none", "in compare.schemes",
                   "for instance --set 'compare.schemes=[\"prenorm\", \"wav\"]'");
  }
  return rows;
}

// Depths and seeds have the ranges of the keys that they replace.
void check_range(std::string_view section, std::string_view key, std::string_view list,
                 int64_t value) {
  const Range& range = find_field(section, key)->range;
  if (range.contains(static_cast<double>(value))) return;
  throw expected(fmt::format("items {} in {}", range.text(), list), value);
}

// A cell's configuration is passed as a file: what train would refuse is refused here.
void check_cell(const GridCell& cell, const SchemeCatalog& catalog) {
  try {
    check_names(cell.config);
    static_cast<void>(
        parse_config(to_toml(cell.config), "its configuration", catalog, ConfigUse::kTrain));
  } catch (const UserError& error) {
    throw UserError(fmt::format("cell {}: {}", cell.folder, error.what()), error.hint());
  }
}

}  // namespace

std::vector<GridCell> expand_grid(const Config& config, const SchemeCatalog& catalog) {
  const std::vector<Row> rows = rows_of(config, catalog);
  const auto or_default = [](const std::vector<int64_t>& list, int64_t otherwise) {
    return list.empty() ? std::vector<int64_t>{otherwise} : list;
  };
  for (const int64_t depth : config.compare.depths) {
    check_range("model", "layers", "compare.depths", depth);
  }
  for (const int64_t seed : config.compare.seeds) {
    check_range("train", "seed", "compare.seeds", seed);
  }
  std::vector<GridCell> cells;
  std::map<std::string, std::string> labels;  // by folder
  for (const int64_t depth : or_default(config.compare.depths, config.model.layers)) {
    for (const Row& row : rows) {
      for (const int64_t seed : or_default(config.compare.seeds, config.train.seed)) {
        GridCell cell{row.label, fmt::format("{}-L{}-s{}", safe_name(row.label), depth, seed),
                      row.config, ""};
        cell.config.name = row.label;
        cell.config.model.layers = depth;
        cell.config.train.seed = seed;
        cell.config.compare = {};
        const auto [known, is_new] = labels.try_emplace(cell.folder, cell.label);
        if (!is_new) {
          throw expected(
              "different cells in the grid",
              fmt::format("the folder {} for {} and for {}", cell.folder, printable(known->second),
                          printable(cell.label)),
              {},
              "give each [[compare.variant]] a label of its own, and list nothing twice; of a "
              "label, letters, digits, '.', '_' and '-' count");
        }
        check_cell(cell, catalog);
        cells.push_back(std::move(cell));
      }
    }
  }
  return cells;
}

void check_overrides(std::span<const std::string> sets, const std::vector<GridCell>& cells,
                     const SchemeCatalog& catalog) {
  std::vector<std::string> schemes;
  for (const GridCell& cell : cells) {
    const std::string& scheme = cell.config.residual.scheme;
    if (std::ranges::find(schemes, scheme) == schemes.end()) schemes.push_back(scheme);
  }
  for (const std::string& set : sets) {
    const Assignment a = parse_override(set, "--set ", "--set");
    if (a.section != "residual" || a.key == "scheme") continue;
    require_option(catalog, schemes, a.key, a.place);
  }
}

}  // namespace wavroute
