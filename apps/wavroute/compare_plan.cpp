#include "compare_plan.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include "base/numbers.h"
#include "base/output.h"
#include "config/print.h"
#include "data/corpus.h"
#include "model/device.h"
#include "train/session.h"
#include "wavroute/error.h"

namespace wavroute::app {
namespace {

int64_t largest_divisor(int64_t batch, int64_t at_most) {
  int64_t divisor = std::clamp<int64_t>(at_most, 1, batch);
  while (batch % divisor != 0) --divisor;
  return divisor;
}

// The texts that the cells name. Each is opened once, as training would: errors in one are found
// before the first cell starts.
class Texts {
 public:
  struct Text {
    int64_t vocab_size = 0, valid_tokens = 0;
    std::string sha256;  // of both splits
  };

  const Text& of(const Config& config) {
    std::string key = fmt::format("{}", config.model.context);
    for (const Setting& setting : settings(config)) {
      const bool is_read = setting.section == "data" || setting.key == "prompt";
      if (is_read) key += setting.key + setting.value;
    }
    const auto known = texts_.find(key);
    if (known != texts_.end()) return known->second;
    const Corpus corpus = open_corpus(config.data, config.model.context);
    static_cast<void>(corpus.tokenizer->encode(config.sample.prompt, "sample.prompt"));
    return texts_[key] = {corpus.tokenizer->vocab_size(), corpus.valid.size(),
                          corpus.train_sha256 + " " + corpus.valid_sha256};
  }

  // Its sha256 where it can be opened; else empty, and why is said once.
  std::string if_there(const Config& config) {
    try {
      return of(config).sha256;
    } catch (const Error& error) {
      if (!std::exchange(said_, true)) {
        note(
            fmt::format("wavroute: the text of finished cells is not looked at: {}", error.what()));
      }
      return {};
    }
  }

 private:
  std::map<std::string, Text> texts_;
  bool said_ = false;
};

// The cell that exceeds the memory by most, as text.
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
// moments in time.
class ProductPeaks {
 public:
  double of(const Config& config, int64_t micro_batch) {
    const ModelConfig& m = config.model;
    const int64_t tokens = micro_batch * m.context;
    const auto key =
        std::tuple(*config.train.precision, config.train.threads, m.width, m.hidden, tokens);
    const auto known = peaks_.find(key);
    if (known != peaks_.end()) return known->second;
    at::set_num_threads(static_cast<int>(config.train.threads));
    return peaks_[key] =
               measure_product_peak(*config.train.precision, m, tokens, device_of(config));
  }

 private:
  std::map<std::tuple<Precision, int64_t, int64_t, int64_t, int64_t>, double> peaks_;
};

}  // namespace

ComparePlan plan_comparison(std::vector<GridCell> cells, int64_t batch, int64_t micro_batch,
                            const Machine& machine, const std::vector<bool>& finished) {
  ComparePlan plan;
  plan.cells = std::move(cells);
  const auto is_finished = [&](size_t i) { return i < finished.size() && finished[i]; };
  Texts texts;
  const auto forecast_of = [&](GridCell& cell) {
    try {
      cell.config = resolve_machine(std::move(cell.config), machine);
      const Texts::Text& text = texts.of(cell.config);
      cell.text = text.sha256;
      return forecast(cell.config, text.vocab_size, machine, text.valid_tokens);
    } catch (const UserError& error) {
      throw UserError(fmt::format("cell {}: {}", cell.folder, error.what()), error.hint());
    }
  };
  int64_t common = batch;
  for (size_t i = 0; i < plan.cells.size(); ++i) {
    GridCell& cell = plan.cells[i];
    Forecast& f = plan.forecasts.emplace_back();
    if (is_finished(i)) continue;
    f = forecast_of(cell);
    const TrainConfig& train = cell.config.train;
    const bool limits = train.micro_batch == 0 && f.micro_batch < train.batch;
    if (limits) common = std::min(common, f.micro_batch);
  }
  // One size for all: chosen per cell, it would depend on the memory that is free when the cell
  // starts. Gradients would be summed in different pieces from seed to seed, and speeds would
  // depend on the size of the pieces. A scheme for which a larger one fits gains little from it: a
  // micro-batch is many tokens already.
  plan.micro_batch = micro_batch > 0 ? micro_batch : largest_divisor(batch, common);
  for (size_t i = 0; i < plan.cells.size(); ++i) {
    TrainConfig& train = plan.cells[i].config.train;
    if (train.micro_batch != 0) continue;
    train.micro_batch = largest_divisor(train.batch, plan.micro_batch);
    if (!is_finished(i)) plan.forecasts[i] = forecast_of(plan.cells[i]);
  }
  for (size_t i = 0; i < plan.cells.size(); ++i) {
    if (is_finished(i)) plan.cells[i].text = texts.if_there(plan.cells[i].config);
  }
  find_worst(plan);
  return plan;
}

std::string plan_text(const ComparePlan& plan) {
  std::string text;
  ProductPeaks peaks;
  double seconds = 0.0;
  for (size_t i = 0, next = 0; i < plan.cells.size(); i = next) {
    const GridCell& cell = plan.cells[i];
    const double peak = peaks.of(cell.config, plan.forecasts[i].micro_batch);
    std::string folders;
    // Seeds are adjacent and differ in nothing that a forecast depends on.
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
