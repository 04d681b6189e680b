#include "compare_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "train/console.h"
#include "train/process.h"
#include "train/session.h"

namespace wavroute::app {
namespace {

int64_t largest_divisor(int64_t batch, int64_t at_most) {
  int64_t divisor = std::clamp<int64_t>(at_most, 1, batch);
  while (batch % divisor != 0) --divisor;
  return divisor;
}

// Vocabularies of the texts that the cells name; each is opened once.
class Vocabularies {
 public:
  int64_t of(const Config& config) {
    const auto key = std::tuple(config.data.tokenizer, config.data.train, config.model.context);
    const auto known = sizes_.find(key);
    if (known != sizes_.end()) return known->second;
    return sizes_[key] = vocabulary_of(config);
  }

 private:
  std::map<std::tuple<std::string, std::string, int64_t>, int64_t> sizes_;
};

// The cell that exceeds the memory by most, in words.
void find_worst(ComparePlan& plan) {
  const Forecast* worst = nullptr;
  for (size_t i = 0; i < plan.cells.size(); ++i) {
    const Forecast& f = plan.forecasts[i];
    if (f.fits() || (worst != nullptr && worst->memory.total() >= f.memory.total())) continue;
    worst = &f;
    const UserError error = beyond_memory(f);
    plan.beyond_memory = fmt::format("{}: {}", plan.cells[i].folder, error.what());
    plan.hint = error.hint();
  }
}

// The speed of a matrix product of each shape, measured once: a forecast compares schemes, not
// moments.
class Peaks {
 public:
  double of(const Config& config, int64_t micro_batch) {
    const ModelConfig& m = config.model;
    const int64_t tokens = micro_batch * m.context;
    const auto key = std::tuple(config.train.precision, m.width, m.hidden, tokens);
    const auto known = peaks_.find(key);
    if (known != peaks_.end()) return known->second;
    return peaks_[key] = measure_product_peak(parse_precision(config.train.precision), m, tokens,
                                              device_of(config));
  }

 private:
  std::map<std::tuple<std::string, int64_t, int64_t, int64_t>, double> peaks_;
};

}  // namespace

ComparePlan plan_comparison(std::vector<GridCell> cells, int64_t batch, int64_t micro_batch,
                            const Machine& machine) {
  ComparePlan plan;
  plan.cells = std::move(cells);
  Vocabularies vocabularies;
  const auto forecast_of = [&](const GridCell& cell) {
    return forecast(cell.config, vocabularies.of(cell.config), machine);
  };
  int64_t common = batch;
  for (GridCell& cell : plan.cells) {
    if (cell.config.train.precision == "auto") {  // said by a variant
      cell.config = resolve_machine(cell.config, machine);
    }
    const Forecast& f = plan.forecasts.emplace_back(forecast_of(cell));
    const TrainConfig& train = cell.config.train;
    const bool limits = train.micro_batch == 0 && f.micro_batch < train.batch;
    if (limits) common = std::min(common, f.micro_batch);
  }
  // One size for all: left to each cell, it would follow the memory that was free when the cell
  // began. Gradients would be summed in other pieces from seed to seed, and a scheme's speed would
  // be that of its pieces. A scheme that fits a larger one gains little by it: a micro-batch is
  // many tokens already.
  plan.micro_batch = micro_batch > 0 ? micro_batch : largest_divisor(batch, common);
  for (size_t i = 0; i < plan.cells.size(); ++i) {
    TrainConfig& train = plan.cells[i].config.train;
    if (train.micro_batch != 0) continue;
    train.micro_batch = largest_divisor(train.batch, plan.micro_batch);
    plan.forecasts[i] = forecast_of(plan.cells[i]);
  }
  find_worst(plan);
  return plan;
}

std::string plan_text(const ComparePlan& plan) {
  std::string text;
  Peaks peaks;
  double seconds = 0.0;
  for (size_t i = 0, next = 0; i < plan.cells.size(); i = next) {
    const GridCell& cell = plan.cells[i];
    const double peak = peaks.of(cell.config, plan.forecasts[i].micro_batch);
    std::string folders;
    // Seeds stand side by side and differ in nothing that a forecast sees.
    for (next = i; next < plan.cells.size() && plan.cells[next].label == cell.label &&
                   plan.cells[next].config.model.layers == cell.config.model.layers;
         ++next) {
      folders += " " + plan.cells[next].folder;
    }
    text += fmt::format("{}, {} layers:{}\n{}\n", cell.label, cell.config.model.layers, folders,
                        forecast_text(plan.forecasts[i], cell.config, peak));
    seconds +=
        static_cast<double>(next - i) * expected_seconds(plan.forecasts[i], cell.config, peak);
  }
  return text + fmt::format("all cells        {} for {} cells\n", format_duration(seconds),
                            plan.cells.size());
}

}  // namespace wavroute::app
