// wavroute program search: the best programs of every length, by tree search and greedy removal.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <set>

#include "base/numbers.h"
#include "base/output.h"
#include "io/file.h"
#include "program.h"
#include "program/greedy.h"
#include "program/layer_list.h"
#include "program/tree_search.h"
#include "report/program_page.h"
#include "train/program_losses.h"
#include "validators.h"
#include "wavroute/error.h"

namespace wavroute::app {
namespace {

struct SearchArguments {
  ModelArguments model;
  std::string data;
  int64_t budget = 100;
  int64_t tokens = 2048;
  int64_t held_out = 8192;
  int64_t context = 0;
  int64_t repeats = 2;
  uint64_t seed = 1;
  std::vector<std::string> beside;
  std::filesystem::path out, save;
  int64_t at_most = 0;
  bool json = false;
};

constexpr const char* kWhole = "whole model";
constexpr const char* kTree = "tree search";
constexpr const char* kGreedy = "greedy removal";
constexpr int kRounds = 5;             // of timing, the programs in turn
constexpr int64_t kTimedTokens = 512;  // a round

// A program and what is known of it.
struct Found {
  Layers layers;
  std::string by;
  double loss = 0.0;  // where it was searched
  double held_out = 0.0, ms_per_token = 0.0;
};

// Of each search the programs that no shorter one beats; none longer than the model itself.
std::vector<Found> candidates(int64_t layers, const Trials& greedy, const Trials& tree) {
  std::vector<Found> found;
  const auto add = [&](const Trials& trials, const char* by) {
    for (const Trial& trial : best_by_length(trials.all())) {
      if (trial.layers == all_layers(layers)) continue;
      found.push_back({trial.layers, by, trial.loss});
    }
  };
  add(greedy, kGreedy);
  add(tree, kTree);
  found.push_back({all_layers(layers), kWhole, tree.all().front().loss});
  return found;
}

// Milliseconds a token of a pass over the first windows: medians of rounds, programs in turn.
void measure_time(const Decoder& model, const EvalWindows& windows, std::vector<Found>& found) {
  const int64_t rows =
      std::min(std::max<int64_t>(kTimedTokens / windows.context(), 1), windows.count());
  const Batch batch = batch_of(windows, 0, rows);
  std::vector<std::vector<double>> times(found.size());
  for (int round = 0; round < kRounds; ++round) {
    for (size_t i = 0; i < found.size(); ++i) {
      const LayerProgram program(found[i].layers, model.spec().model.layers);
      const auto start = std::chrono::steady_clock::now();
      static_cast<void>(program_losses(model, batch, program, 0));
      const std::chrono::duration<double, std::milli> taken =
          std::chrono::steady_clock::now() - start;
      times[i].push_back(taken.count());
    }
  }
  for (size_t i = 0; i < found.size(); ++i) {
    std::ranges::nth_element(times[i], times[i].begin() + kRounds / 2);
    found[i].ms_per_token = times[i][kRounds / 2] / static_cast<double>(rows * windows.context());
  }
}

// Whether training left out layers, so that the model was made to be pruned.
bool drops_layers(const Decoder& model) {
  constexpr int64_t kDraws = 100;
  for (int64_t step = 0; step < kDraws; ++step) {
    const Pass pass{true, 1, {step, kDraws}};
    for (int64_t layer = 0; layer < model.spec().model.layers; ++layer) {
      if (!model.residual().runs_layer(layer, pass)) return true;
    }
  }
  return false;
}

// Another model on the same held-out text: as it is, and pruned where it was trained for that.
std::vector<ProgramPoint> score_beside(const std::string& run, const SearchArguments& arguments) {
  ModelArguments other = arguments.model;
  other.run = run;
  other.checkpoint.clear();
  const ProgramSubject subject = open_any_subject(other, arguments.data, arguments.context);
  const Decoder& model = *subject.loaded.model;
  const EvalWindows windows(part_of(subject, arguments.tokens, arguments.held_out + 1),
                            subject.context, arguments.held_out);
  const int64_t layers = model.spec().model.layers;
  std::vector<LayerProgram> programs = {LayerProgram(layers)};
  if (drops_layers(model)) {
    programs.push_back(LayerProgram::parse("every-other", layers));
  }
  std::vector<ProgramPoint> points;
  for (const LayerProgram& program : programs) {
    const auto start = std::chrono::steady_clock::now();
    const Evaluation result = evaluate(model, windows, *subject.loaded.tokenizer, {{}, &program});
    const std::chrono::duration<double, std::milli> taken =
        std::chrono::steady_clock::now() - start;
    const double depth =
        result.mean_depth > 0.0 ? result.mean_depth : static_cast<double>(program.layers().size());
    points.push_back({fmt::format("{} ({})", model.spec().scheme, run),
                      program.is_plain() ? "all layers" : program.text(), depth, result.loss,
                      taken.count() / static_cast<double>(result.tokens)});
  }
  return points;
}

const Found& whole_of(const std::vector<Found>& found) { return found.back(); }

// What the numbers carry.
std::vector<std::string> words_of(const std::vector<Found>& found, const SearchArguments& arguments,
                                  const std::string& run) {
  const Found& whole = whole_of(found);
  std::vector<std::string> words = {fmt::format(
      "{} on {}: {} programs each by tree search and by greedy removal, searched on the first {} "
      "tokens, scored on the next {}. The whole model: {} layers, loss {:.4f}.",
      run, arguments.data, arguments.budget, arguments.tokens, arguments.held_out,
      whole.layers.size(), whole.held_out)};
  const Found* free = nullptr;
  for (const Found& program : found) {
    if (program.layers.size() < whole.layers.size() && program.held_out <= whole.held_out &&
        (free == nullptr || program.layers.size() < free->layers.size())) {
      free = &program;
    }
  }
  words.push_back(free == nullptr
                      ? "No shorter program had a loss on the held-out text as low as the whole "
                        "model's."
                      : fmt::format("{} ({} layers, {}) had no higher loss on the held-out text "
                                    "than the whole model: {:.4f}.",
                                    program_text(free->layers), free->layers.size(), free->by,
                                    free->held_out));
  return words;
}

void save_program(const SearchArguments& arguments, const std::vector<Found>& found) {
  const auto whole = std::ssize(whole_of(found).layers);
  const int64_t most = arguments.at_most > 0 ? arguments.at_most : whole * 3 / 4;
  const Found* best = nullptr;
  for (const Found& program : found) {
    if (std::ssize(program.layers) > most) continue;
    if (best == nullptr || program.loss < best->loss) best = &program;
  }
  if (best == nullptr) {
    throw expected(fmt::format("a program of at most {} layers to --save", most),
                   "only longer ones were found", {}, "a larger --budget finds shorter ones");
  }
  write_layer_list(best->layers, followed_link(arguments.save));
  note(fmt::format("{}: {} ({} layers)", arguments.save.string(), program_text(best->layers),
                   best->layers.size()));
}

nlohmann::ordered_json document_of(const SearchArguments& arguments,
                                   const std::vector<Found>& found,
                                   const std::vector<ProgramPoint>& others) {
  nlohmann::ordered_json programs = nlohmann::ordered_json::array();
  for (const Found& program : found) {
    programs.push_back({{"found_by", program.by},
                        {"program", program_text(program.layers)},
                        {"layers", program.layers},
                        {"count", program.layers.size()},
                        {"loss", program.loss},
                        {"held_out_loss", program.held_out},
                        {"ms_per_token", program.ms_per_token}});
  }
  nlohmann::ordered_json models = nlohmann::ordered_json::array();
  for (const ProgramPoint& point : others) {
    models.push_back({{"model", point.series},
                      {"program", point.label},
                      {"count", point.layers},
                      {"held_out_loss", point.loss},
                      {"ms_per_token", point.ms_per_token}});
  }
  return {{"run", arguments.model.run.string()},
          {"data", arguments.data},
          {"budget", arguments.budget},
          {"tokens", arguments.tokens},
          {"held_out", arguments.held_out},
          {"programs", programs},
          {"models", models}};
}

void print_table(const std::vector<ProgramPoint>& points) {
  print(fmt::format("{:<16}{:>8}{:>10}{:>12}  {}\n", "found by", "layers", "loss", "ms/token",
                    "program"));
  for (const ProgramPoint& point : points) {
    print(fmt::format("{:<16}{:>8.4g}{:>10.4f}{:>12.3f}  {}\n", point.series, point.layers,
                      point.loss, point.ms_per_token, point.label));
  }
}

int search(const SearchArguments& arguments) {
  check_writable(arguments.out);
  check_writable(arguments.save);
  const ProgramSubject subject = open_subject(arguments.model, arguments.data, arguments.context);
  const Decoder& model = *subject.loaded.model;
  const int64_t layers = model.spec().model.layers;
  const EvalWindows held_out(part_of(subject, arguments.tokens, arguments.held_out + 1),
                             subject.context, arguments.held_out);
  const ProgramLoss loss = remembered_loss(subject, arguments.tokens, 2 * arguments.budget);
  Trials greedy(arguments.budget, loss), tree(arguments.budget, loss);
  remove_greedily(layers, greedy);
  search_tree({.layers = layers, .most_repeats = arguments.repeats, .seed = arguments.seed}, tree);

  std::vector<Found> found = candidates(layers, greedy, tree);
  std::map<Layers, double> scored;
  for (Found& program : found) {
    const auto [place, fresh] = scored.try_emplace(program.layers, 0.0);
    if (fresh) {
      place->second =
          evaluate_program(subject, held_out, LayerProgram(program.layers, layers)).loss;
    }
    program.held_out = place->second;
  }
  measure_time(model, held_out, found);

  std::vector<ProgramPoint> points;
  points.reserve(found.size());
  for (const Found& program : found) {
    points.push_back({program.by, program_text(program.layers),
                      static_cast<double>(program.layers.size()), program.held_out,
                      program.ms_per_token});
  }
  std::vector<ProgramPoint> others;
  for (const std::string& run : arguments.beside) {
    for (ProgramPoint& point : score_beside(run, arguments)) others.push_back(std::move(point));
  }
  points.insert(points.end(), others.begin(), others.end());
  const std::vector<std::string> words = words_of(found, arguments, arguments.model.run.string());
  if (!arguments.out.empty()) {
    write_program_page("Which layers does it need?", words, points, followed_link(arguments.out));
  }
  if (arguments.json) {
    print_line(document_of(arguments, found, others));
  } else {
    print_table(points);
    for (const std::string& paragraph : words) print(paragraph + "\n");
  }
  if (!arguments.save.empty()) save_program(arguments, found);
  return 0;
}

}  // namespace

void add_program_search(CLI::App& program, Action& action) {
  auto* command = program.add_subcommand(
      "search", "Search for programs (layers left out or run again) of low loss");
  auto arguments = std::make_shared<SearchArguments>();
  add_model_arguments(*command, arguments->model, "auto");
  command
      ->add_option("--data", arguments->data,
                   "A text or a token file: searched on its beginning, scored on what follows")
      ->required();
  command->add_option("--budget", arguments->budget, "Programs that each search may evaluate")
      ->check(integer_from(2))
      ->capture_default_str();
  command->add_option("--tokens", arguments->tokens, "Tokens to search on")
      ->check(integer_from(1))
      ->capture_default_str();
  command->add_option("--held-out", arguments->held_out, "Tokens after them to score on")
      ->check(integer_from(1))
      ->capture_default_str();
  command
      ->add_option("--context", arguments->context,
                   "Window length; 0: the model's, 512 at the most")
      ->check(integer_from(0))
      ->capture_default_str();
  command->add_option("--repeats", arguments->repeats, "Times that a layer may run; 1: only skip")
      ->check(integer_from(1, 8))
      ->capture_default_str();
  command->add_option("--seed", arguments->seed, "Of the tree search")->capture_default_str();
  command
      ->add_option("--beside", arguments->beside,
                   "Another RUN to score on the same text: an act model at its mean depth, a "
                   "layerdrop model pruned; repeatable")
      ->allow_extra_args(false);
  command->add_option("--out", arguments->out, "Write a page with charts to this file");
  command->add_option("--save", arguments->save,
                      "Write the best program of at most --at-most layers to this file, for "
                      "--program @FILE");
  command->add_option("--at-most", arguments->at_most, "Layers; 0: three quarters of the model's")
      ->check(integer_from(0))
      ->capture_default_str();
  command->add_flag("--json", arguments->json, "Print one JSON object");
  command->footer(
      "Examples:\n"
      "    wavroute program search runs/demo --data valid.txt --out page.html --save p.json\n"
      "    wavroute generate runs/demo --program @p.json --prompt \"...\"");
  command->callback([&action, arguments] { action = [arguments] { return search(*arguments); }; });
}

}  // namespace wavroute::app
