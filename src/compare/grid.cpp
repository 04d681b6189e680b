#include "compare/grid.h"

#include <fmt/format.h>

#include <cctype>
#include <set>

#include "config/load.h"
#include "config/scheme_options.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

struct Row {
  std::string label;
  Config config;  // without depth and seed
};

// Letters, digits, '.', '_' and '-' alone.
std::string safe_name(const std::string& label) {
  std::string name;
  for (const char c : label) {
    const auto byte = static_cast<unsigned char>(c);
    const bool keeps = std::isalnum(byte) != 0 || c == '.' || c == '_' || c == '-';
    if (keeps) {
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
      throw UserError(fmt::format("variant '{}' sets {}, which the grid sets for every cell",
                                  variant.label, key),
                      "use compare.depths and compare.seeds");
    }
    rows.push_back({variant.label, with_overrides(config, variant.overrides, catalog)});
  }
  if (rows.empty()) {
    throw UserError("a comparison of at least one scheme was expected, compare.schemes is empty",
                    "for instance --set 'compare.schemes=[\"prenorm\", \"wav\"]'");
  }
  return rows;
}

}  // namespace

std::vector<GridCell> expand_grid(const Config& config, const SchemeCatalog& catalog) {
  const std::vector<Row> rows = rows_of(config, catalog);
  const auto or_default = [](const std::vector<int64_t>& list, int64_t otherwise) {
    return list.empty() ? std::vector<int64_t>{otherwise} : list;
  };
  std::vector<GridCell> cells;
  std::set<std::string> folders;
  for (const int64_t depth : or_default(config.compare.depths, config.model.layers)) {
    for (const Row& row : rows) {
      for (const int64_t seed : or_default(config.compare.seeds, config.train.seed)) {
        GridCell cell{row.label, fmt::format("{}-L{}-s{}", safe_name(row.label), depth, seed),
                      row.config};
        cell.config.name = row.label;
        cell.config.model.layers = depth;
        cell.config.train.seed = seed;
        cell.config.compare = {};
        if (!folders.insert(cell.folder).second) {
          throw UserError(
              fmt::format("different cells were expected in the grid, {} comes twice", cell.folder),
              "give each [[compare.variant]] a label of its own, and list nothing twice");
        }
        cells.push_back(std::move(cell));
      }
    }
  }
  return cells;
}

}  // namespace wavroute
