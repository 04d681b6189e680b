#include "compare_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/numbers.h"
#include "base/output.h"
#include "config/print.h"
#include "data/corpus.h"
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
    const Forecast& f = plan.trainings[i].forecast;
    if (f.fits() || (worst != nullptr && worst->memory.total() >= f.memory.total())) continue;
    worst = &f;
    const UserError error = beyond_memory(f);
    plan.beyond_memory = fmt::format("{}: {}", plan.cells[i].folder, error.what());
    plan.hint = error.hint();
  }
}

// How many threads a cell can use: a thread is worth its waiting for the others where it has this
// much of each matrix product to do (docs/compare.md).
int64_t useful_threads(const PlannedTraining& training, int64_t threads) {
  constexpr double kFlopsPerThread = 16e6;
  const ModelConfig& model = training.config.model;
  const auto rows = static_cast<double>(training.forecast.micro_batch * model.context);
  const auto width = static_cast<double>(model.width);
  const auto useful = static_cast<int64_t>(2.0 * rows * width * width / kFlopsPerThread);
  return std::clamp<int64_t>(useful, 1, threads);
}

// The plan with the most memory, of the cells that are to be trained.
double largest_plan(const ComparePlan& plan) {
  double memory = 1.0;
  for (size_t i = 0; i < plan.cells.size(); ++i) {
    if (!plan.finished[i]) memory = std::max(memory, plan.trainings[i].forecast.memory.total());
  }
  return memory;
}

double available_memory(const ComparePlan& plan) {
  double available = 0.0;
  for (const PlannedTraining& training : plan.trainings) {
    available = std::max(available, training.forecast.available);
  }
  return available;
}

// Cells that the user wants side by side and that don't fit so.
void check_side_by_side(ComparePlan& plan) {
  const double available = available_memory(plan),
               together = largest_plan(plan) * static_cast<double>(plan.jobs);
  if (!plan.beyond_memory.empty() || plan.jobs < 2 || together <= available) return;
  plan.beyond_memory =
      expectation(fmt::format("memory plans within the {} that are free", format_bytes(available)),
                  fmt::format("{} for compare.jobs = {}", format_bytes(together), plan.jobs));
  plan.hint = "compare.jobs = \"auto\" trains as many cells at a time as fit";
}

// compare.jobs, or as many cells as have enough threads and memory.
int64_t jobs_of(const ComparePlan& plan, const Config& config) {
  if (config.compare.jobs) return *config.compare.jobs;
  if (config.train.device == DeviceKind::kCuda) return 1;
  int64_t useful = 1;
  for (size_t i = 0; i < plan.cells.size(); ++i) {
    if (plan.finished[i]) continue;
    useful = std::max(useful, useful_threads(plan.trainings[i], config.train.threads));
  }
  const auto fitting =
      static_cast<int64_t>(std::min(available_memory(plan) / largest_plan(plan), 1e6));
  const auto cells = static_cast<int64_t>(plan.cells.size());
  return std::max<int64_t>(1, std::min({config.train.threads / useful, fitting, cells}));
}

// Plans the cells in a plan one by one.
class Planner {
 public:
  Planner(const PlanRequest& request, const Machine& machine)
      : request_(request), machine_(machine) {}

  // Fills all but jobs and what doesn't fit.
  ComparePlan plan(std::vector<GridCell> cells) {
    ComparePlan plan;
    plan.config = request_.config;
    plan.cells = std::move(cells);
    const int64_t batch = request_.config.train.batch;
    int64_t common = batch;
    for (GridCell& cell : plan.cells) {
      const int64_t trained = request_.trained_parameters(cell);
      PlannedTraining& training = plan.trainings.emplace_back();
      plan.finished.push_back(trained >= 0);
      if (trained >= 0) {
        training.forecast.parameters = trained;
        continue;
      }
      training = planned(cell);
      const TrainConfig& train = cell.config.train;
      const bool limits = train.micro_batch == 0 && training.forecast.micro_batch < train.batch;
      if (limits) common = std::min(common, training.forecast.micro_batch);
    }
    // One size for all: chosen per cell, it would depend on the memory that is free when the cell
    // starts. Gradients would be summed in different pieces from seed to seed, and speeds would
    // depend on the size of the pieces. A scheme for which a larger one fits gains little from it:
    // a micro-batch is many tokens already.
    plan.micro_batch =
        request_.micro_batch > 0 ? request_.micro_batch : largest_divisor(batch, common);
    for (size_t i = 0; i < plan.cells.size(); ++i) {
      TrainConfig& train = plan.cells[i].config.train;
      if (train.micro_batch != 0) continue;
      train.micro_batch = largest_divisor(train.batch, plan.micro_batch);
      if (!plan.finished[i]) plan.trainings[i] = planned(plan.cells[i]);
    }
    for (size_t i = 0; i < plan.cells.size(); ++i) {
      if (plan.finished[i]) plan.cells[i].text = texts_.if_there(plan.cells[i].config);
    }
    return plan;
  }

 private:
  PlannedTraining planned(GridCell& cell) {
    try {
      cell.config = resolve_machine(std::move(cell.config), machine_);
      const Texts::Text& text = texts_.of(cell.config);
      cell.text = text.sha256;
      return {cell.config, forecast(cell.config, text.vocab_size, machine_, text.valid_tokens),
              text.vocab_size, text.valid_tokens};
    } catch (const UserError& error) {
      throw UserError(fmt::format("cell {}: {}", cell.folder, error.what()), error.hint());
    }
  }

  const PlanRequest& request_;
  const Machine& machine_;
  Texts texts_;
};

// Each job's share of the threads, for the cells that have no number of their own.
void divide_threads(ComparePlan& plan) {
  const int64_t all = plan.config.train.threads;
  const int64_t share = std::max<int64_t>(1, all / plan.jobs);
  for (size_t i = 0; i < plan.cells.size(); ++i) {
    for (Config* config : {&plan.cells[i].config, &plan.trainings[i].config}) {
      if (config->train.threads == all) config->train.threads = share;
    }
  }
}

std::vector<int64_t> parameters_of(const ComparePlan& plan) {
  std::vector<int64_t> parameters;
  for (const PlannedTraining& training : plan.trainings) {
    parameters.push_back(training.forecast.parameters);
  }
  return parameters;
}

}  // namespace

ComparePlan plan_comparison(const PlanRequest& request, const Machine& machine) {
  Planner planner(request, machine);
  ComparePlan plan = planner.plan(request.expand({}));
  if (request.config.compare.wider_baseline) {
    const auto wider = wider_baselines(plan.cells, parameters_of(plan));
    if (!wider.empty()) plan = planner.plan(request.expand(wider));
  }
  find_worst(plan);
  plan.jobs = jobs_of(plan, request.config);
  check_side_by_side(plan);
  divide_threads(plan);
  return plan;
}

std::string plan_text(const ComparePlan& plan) {
  std::string text;
  std::vector<PlannedTraining> shapes;
  std::vector<std::vector<size_t>> cells_of;  // beside shapes
  // Seeds and learning rates are adjacent and differ in nothing that a forecast depends on.
  for (size_t i = 0; i < plan.cells.size(); ++i) {
    const GridCell& cell = plan.cells[i];
    const GridCell* before = i > 0 ? &plan.cells[i - 1] : nullptr;
    const bool is_same = before != nullptr && before->label == cell.label &&
                         before->config.model.layers == cell.config.model.layers &&
                         before->config.train.steps == cell.config.train.steps;
    if (!is_same) {
      shapes.push_back(plan.trainings[i]);
      cells_of.emplace_back();
    }
    cells_of.back().push_back(i);
  }
  const std::vector<ExpectedTime> times = expected_times(shapes);
  double seconds = 0.0;
  for (size_t s = 0; s < shapes.size(); ++s) {
    const GridCell& first = plan.cells[cells_of[s].front()];
    std::string folders;
    for (const size_t i : cells_of[s]) folders += " " + plan.cells[i].folder;
    text += fmt::format("{}, {} layers:{}\n{}{}\n", first.label, first.config.model.layers, folders,
                        forecast_text(shapes[s].forecast), times[s].line);
    seconds += static_cast<double>(cells_of[s].size()) * times[s].seconds;
  }
  const std::string side_by_side =
      plan.jobs > 1 ? fmt::format(", {} at a time with {} thread{} each", plan.jobs,
                                  plan.cells.front().config.train.threads,
                                  plan.cells.front().config.train.threads == 1 ? "" : "s")
                    : "";
  return text + fmt::format("all cells        {} for {} cells{}\n",
                            format_duration(seconds / static_cast<double>(plan.jobs)),
                            plan.cells.size(), side_by_side);
}

std::string list_text(const ComparePlan& plan, bool json) {
  using Json = nlohmann::ordered_json;
  Json list = Json::array();
  std::string text;
  for (size_t i = 0; i < plan.cells.size(); ++i) {
    const GridCell& cell = plan.cells[i];
    Json needs = Json::array();
    std::string waits;
    for (const size_t need : cell.needs) {
      needs.push_back(need + 1);
      waits += fmt::format("{}{}", waits.empty() ? "  after " : ", ", need + 1);
    }
    list.push_back({{"n", i + 1},
                    {"folder", cell.folder},
                    {"label", cell.label},
                    {"depth", cell.config.model.layers},
                    {"seed", cell.config.train.seed},
                    {"role", to_string(cell.role)},
                    {"needs", needs},
                    {"finished", static_cast<bool>(plan.finished[i])}});
    text += fmt::format("{:>4}  {}{}{}\n", i + 1, cell.folder, waits,
                        plan.finished[i] ? "  finished" : "");
  }
  return json ? list.dump(2) + "\n" : text;
}

}  // namespace wavroute::app
