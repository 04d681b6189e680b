#include "compare/grid.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <map>
#include <set>
#include <string_view>
#include <utility>

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
  std::vector<std::string> wider_for = {};
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
      const bool is_rate = key == "optimizer.lr" && !config.compare.lrs.empty();
      if (key != "model.layers" && key != "train.seed" && !is_rate) continue;
      throw expected("a key that the grid does not set for every cell", key,
                     fmt::format("in variant '{}'", variant.label),
                     is_rate ? "each row tries the rates of compare.lrs"
                             : "use compare.depths and compare.seeds");
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

// Puts the cells of a grid together.
class Grid {
 public:
  Grid(const Config& config, const SchemeCatalog& catalog)
      : config_(config), catalog_(catalog), seeds_(config.compare.seeds) {
    if (seeds_.empty()) seeds_ = {config.train.seed};
  }

  // All seeds of one row at one depth.
  void add_row(const Row& row, int64_t depth) {
    const std::vector<double>& rates = config_.compare.lrs;
    std::vector<size_t> tried;
    for (const double rate : rates) {
      GridCell cell = cell_of(row, depth, seeds_.front(), fmt::format("-lr{}", rate));
      cell.role = CellRole::kRate;
      cell.config.optimizer.lr = rate;
      tried.push_back(cells_.size());
      add(std::move(cell));
    }
    for (const int64_t seed : reported_seeds()) {
      GridCell cell = cell_of(row, depth, seed, "");
      cell.needs = tried;
      add(std::move(cell));
    }
    tried_.try_emplace({row.label, depth}, std::move(tried));
  }

  // The row trained for other numbers of steps. Evaluations and checkpoints keep their places as
  // shares of the run, so that the last ones are of the same stage of the schedule.
  void add_budgets(const Row& row, int64_t depth) {
    const TrainConfig& train = row.config.train;
    std::set<int64_t> known = {train.steps};
    for (const double budget : config_.compare.budgets) {
      const auto scaled = [&](int64_t steps) {
        if (steps == 0) return steps;
        return std::max<int64_t>(1, std::llround(budget * static_cast<double>(steps)));
      };
      if (!known.insert(scaled(train.steps)).second) continue;
      const std::vector<int64_t> seeds = reported_seeds();
      for (const int64_t seed : seeds.empty() ? seeds_ : seeds) {
        GridCell cell = cell_of(row, depth, seed, fmt::format("-x{}", budget));
        cell.role = CellRole::kBudget;
        cell.config.train.steps = scaled(train.steps);
        cell.config.train.eval_every = scaled(train.eval_every);
        cell.config.train.save_every = scaled(train.save_every);
        cell.budget =
            static_cast<double>(cell.config.train.steps) / static_cast<double>(train.steps);
        cell.needs = tried_.at({row.label, depth});
        add(std::move(cell));
      }
    }
  }

  std::vector<GridCell> take() { return std::move(cells_); }

 private:
  // Those whose losses are reported: not the one on which the learning rate was chosen, unless it
  // is the only one.
  [[nodiscard]] std::vector<int64_t> reported_seeds() const {
    if (config_.compare.lrs.empty()) return seeds_;
    return {seeds_.begin() + 1, seeds_.end()};
  }

  [[nodiscard]] static GridCell cell_of(const Row& row, int64_t depth, int64_t seed,
                                        const std::string& mark) {
    GridCell cell{row.label, fmt::format("{}{}-L{}-s{}", safe_name(row.label), mark, depth, seed),
                  row.config, ""};
    cell.config.name = row.label;
    cell.config.model.layers = depth;
    cell.config.train.seed = seed;
    cell.config.compare = {};
    cell.wider_for = row.wider_for;
    return cell;
  }

  void add(GridCell cell) {
    const auto [known, is_new] = labels_.try_emplace(cell.folder, cell.label);
    if (!is_new) {
      throw expected(
          "different cells in the grid",
          fmt::format("the folder {} for {} and for {}", cell.folder, printable(known->second),
                      printable(cell.label)),
          {},
          "give each [[compare.variant]] a label of its own, and list nothing twice; of a "
          "label, letters, digits, '.', '_' and '-' count");
    }
    check_cell(cell, catalog_);
    cells_.push_back(std::move(cell));
  }

  const Config& config_;
  const SchemeCatalog& catalog_;
  std::vector<int64_t> seeds_;
  std::vector<GridCell> cells_;
  std::map<std::string, std::string> labels_;                             // by folder
  std::map<std::pair<std::string, int64_t>, std::vector<size_t>> tried_;  // rates, by row and depth
};

int64_t hidden_of(const ModelConfig& model) {
  return model.hidden > 0 ? model.hidden : 4 * model.width;
}

// The baseline of `rows` with a wider MLP.
Row wider_row(const Row& baseline, const WiderBaseline& wider) {
  Row row{fmt::format("{}-h{}", baseline.label, wider.hidden), baseline.config, wider.labels};
  row.config.model.hidden = wider.hidden;
  return row;
}

bool same_model(const ModelConfig& a, const ModelConfig& b) {
  Config one, other;
  one.model = a;
  other.model = b;
  return changed_keys(one, other).empty();
}

}  // namespace

std::vector<GridCell> expand_grid(const Config& config, const SchemeCatalog& catalog,
                                  std::span<const WiderBaseline> wider) {
  const std::vector<Row> rows = rows_of(config, catalog);
  std::vector<int64_t> depths = config.compare.depths;
  if (depths.empty()) depths = {config.model.layers};
  for (const int64_t depth : config.compare.depths) {
    check_range("model", "layers", "compare.depths", depth);
  }
  for (const int64_t seed : config.compare.seeds) {
    check_range("train", "seed", "compare.seeds", seed);
  }
  Grid grid(config, catalog);
  for (const int64_t depth : depths) {
    for (const Row& row : rows) grid.add_row(row, depth);
    for (const WiderBaseline& one : wider) {
      if (one.depth == depth) grid.add_row(wider_row(rows.front(), one), depth);
    }
  }
  for (const int64_t depth : depths) grid.add_budgets(rows.front(), depth);
  return grid.take();
}

std::vector<WiderBaseline> wider_baselines(const std::vector<GridCell>& cells,
                                           std::span<const int64_t> parameters) {
  constexpr double kWorthARow = 0.01;   // of the baseline's parameters
  constexpr int64_t kMatrices = 3;      // of an MLP: gate, up and down
  std::map<int64_t, size_t> baselines;  // depth -> the first cell of the first row
  std::vector<WiderBaseline> result;
  for (size_t i = 0; i < cells.size(); ++i) {
    const ModelConfig& model = cells[i].config.model;
    if (cells[i].label == cells.front().label) baselines.try_emplace(model.layers, i);
    const auto known = baselines.find(model.layers);
    if (known == baselines.end() || cells[i].label == cells.front().label) continue;
    const ModelConfig& base = cells[known->second].config.model;
    const int64_t own = parameters[known->second], more = parameters[i] - own;
    if (!same_model(model, base) || own <= 0) continue;
    if (static_cast<double>(more) <= kWorthARow * static_cast<double>(own)) continue;
    const int64_t unit = kMatrices * base.width * base.layers;  // parameters of one more column
    const int64_t hidden = hidden_of(base) + (more + unit / 2) / unit;
    if (hidden == hidden_of(base)) continue;
    auto same = std::ranges::find_if(result, [&](const WiderBaseline& one) {
      return one.depth == base.layers && one.hidden == hidden;
    });
    if (same == result.end()) same = result.insert(result.end(), {base.layers, hidden, {}});
    if (std::ranges::count(same->labels, cells[i].label) == 0) {
      same->labels.push_back(cells[i].label);
    }
  }
  return result;
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
