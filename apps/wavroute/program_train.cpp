// wavroute program train: a predictor that chooses a program for each text from its beginning.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/output.h"
#include "io/file.h"
#include "model/program_choice.h"
#include "program.h"
#include "program/layer_list.h"
#include "program/tree_search.h"
#include "report/statistics.h"
#include "train/program_losses.h"
#include "train/program_predictor.h"
#include "validators.h"
#include "wavroute/error.h"

namespace wavroute::app {
namespace {

struct TrainArguments {
  ModelArguments model;
  std::string data;
  std::filesystem::path out;
  int64_t budget = 60;
  int64_t tokens = 2048;
  int64_t texts = 256;
  int64_t prompt = 32;
  int64_t length = 96;
  int64_t programs = 8;
  int64_t at_most = 0;
  uint64_t seed = 1;
  bool json = false;
};

// Texts one after the other, scored under every program.
struct Scored {
  ProgramScores scores;
  std::vector<std::vector<double>> by_program;  // [programs][texts]
};

Scored score(const ProgramSubject& subject, const EvalWindows& windows, int64_t begin, int64_t end,
             const std::vector<LayerProgram>& programs, int64_t prompt) {
  const Decoder& model = *subject.loaded.model;
  const Batch batch = batch_of(windows, begin, end);
  Scored scored;
  std::vector<at::Tensor> features;
  for (int64_t i = 0; i < batch.rows(); ++i) {
    const auto ids = batch.slice(i, i + 1).input_ids();
    features.push_back(
        prompt_features(model, std::vector<int64_t>(ids.begin(), ids.end()), prompt));
  }
  scored.scores.features = at::stack(features);
  std::vector<at::Tensor> losses;
  for (const LayerProgram& program : programs) {
    scored.by_program.push_back(program_losses(model, batch, program, prompt));
    losses.push_back(at::tensor(scored.by_program.back(), at::kDouble));
  }
  scored.scores.losses = at::stack(losses, 1);
  return scored;
}

// Some of the programs that no shorter one beats, evenly over their lengths, the whole model last.
std::vector<LayerProgram> candidates(const ProgramSubject& subject,
                                     const TrainArguments& arguments) {
  const int64_t layers = subject.loaded.model->spec().model.layers;
  Trials trials(arguments.budget, remembered_loss(subject, arguments.tokens, arguments.budget));
  search_tree({.layers = layers, .most_repeats = 2, .seed = arguments.seed}, trials);
  std::vector<Layers> best;
  for (const Trial& trial : best_by_length(trials.all())) {
    if (trial.layers != all_layers(layers)) best.push_back(trial.layers);
  }
  const auto count = std::min<int64_t>(std::ssize(best), arguments.programs - 1);
  std::vector<LayerProgram> programs;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t place = count == 1 ? 0 : i * (std::ssize(best) - 1) / (count - 1);
    programs.emplace_back(best[static_cast<size_t>(place)], layers);
  }
  programs.emplace_back(layers);
  return programs;
}

// The program of at most `most` layers with the least mean loss.
std::optional<size_t> best_fixed(const std::vector<LayerProgram>& programs, const Scored& scored,
                                 int64_t most) {
  std::optional<size_t> best;
  for (size_t p = 0; p < programs.size(); ++p) {
    if (std::ssize(programs[p].layers()) > most) continue;
    if (!best || mean(scored.by_program[p]) < mean(scored.by_program[*best])) best = p;
  }
  return best;
}

// The choices on texts that nothing was fitted to.
struct Outcome {
  std::vector<int64_t> times;  // that each program was chosen
  double layers = 0.0;         // mean
  std::vector<double> losses;  // of each text under its program
};

Outcome apply(const ProgramChoice& choice, const Scored& scored) {
  Outcome outcome;
  outcome.times.assign(choice.programs().size(), 0);
  const int64_t texts = scored.scores.features.size(0);
  for (int64_t i = 0; i < texts; ++i) {
    const size_t chosen = choice.choose(scored.scores.features[i]);
    ++outcome.times[chosen];
    outcome.layers += static_cast<double>(choice.programs()[chosen].layers().size());
    outcome.losses.push_back(scored.by_program[chosen][static_cast<size_t>(i)]);
  }
  outcome.layers /= static_cast<double>(texts);
  return outcome;
}

int train(const TrainArguments& arguments) {
  check_writable(arguments.out);
  const ProgramSubject subject = open_subject(arguments.model, arguments.data, 0);
  const Decoder& model = *subject.loaded.model;
  const int64_t layers = model.spec().model.layers, context = arguments.prompt + arguments.length;
  const int64_t half = arguments.texts / 2;
  const EvalWindows windows(part_of(subject, arguments.tokens, 2 * half * context + 1), context, 0);
  const std::vector<LayerProgram> programs = candidates(subject, arguments);
  const Scored fitted = score(subject, windows, 0, half, programs, arguments.prompt);
  const Scored held_out = score(subject, windows, half, 2 * half, programs, arguments.prompt);

  const int64_t most = arguments.at_most > 0 ? arguments.at_most : layers * 3 / 4;
  const std::optional<size_t> fixed = best_fixed(programs, fitted, most);
  if (!fixed) {
    throw expected(fmt::format("a program of at most {} layers", most), "only longer ones found",
                   {}, "a larger --budget finds shorter ones");
  }
  std::vector<int64_t> lengths;
  lengths.reserve(programs.size());
  for (const LayerProgram& program : programs) lengths.push_back(std::ssize(program.layers()));
  const auto equal = static_cast<double>(lengths[*fixed]);
  const ProgramFit fit = fit_programs(fitted.scores, lengths, equal);
  const ProgramChoice choice({programs, arguments.prompt, fit.mean, fit.scale, fit.weights,
                              fit.bias, fit.price, layers, subject.loaded.tokenizer->hash()});
  choice.write(followed_link(arguments.out));

  const Outcome outcome = apply(choice, held_out);
  const PairedDifference gain = paired_difference(outcome.losses, held_out.by_program[*fixed]);
  const bool is_as_short = outcome.layers <= 1.01 * equal;
  const bool beats = is_as_short && gain.excludes_zero() && gain.mean < 0.0;
  const std::string verdict = fmt::format(
      "{}: {:+.4f} +/- {:.4f} nats a token on {} held-out texts, with {:.2f} layers against {} of "
      "the best fixed program, {}",
      beats ? "The choice beats the best fixed program of equal cost"
            : "The choice does not beat the best fixed program of equal cost",
      gain.mean, gain.half_width.value_or(0.0), half, outcome.layers, lengths[*fixed],
      programs[*fixed].text());
  if (arguments.json) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (size_t p = 0; p < programs.size(); ++p) {
      list.push_back({{"program", programs[p].text()},
                      {"count", lengths[p]},
                      {"loss", mean(fitted.by_program[p])},
                      {"held_out_loss", mean(held_out.by_program[p])},
                      {"chosen", outcome.times[p]}});
    }
    const nlohmann::ordered_json document = {
        {"run", arguments.model.run.string()},
        {"data", arguments.data},
        {"out", arguments.out.string()},
        {"texts", half},
        {"programs", list},
        {"fixed",
         {{"program", programs[*fixed].text()},
          {"count", lengths[*fixed]},
          {"held_out_loss", mean(held_out.by_program[*fixed])}}},
        {"chosen", {{"mean_layers", outcome.layers}, {"held_out_loss", mean(outcome.losses)}}},
        {"difference", {{"mean", gain.mean}, {"half_width", gain.half_width.value_or(NAN)}}},
        {"beats_fixed", beats},
        {"verdict", verdict}};
    print_line(document);
    return 0;
  }
  print(fmt::format("{:>8}{:>10}{:>12}{:>9}  {}\n", "layers", "loss", "held-out", "chosen",
                    "program"));
  for (size_t p = 0; p < programs.size(); ++p) {
    print(fmt::format("{:>8}{:>10.4f}{:>12.4f}{:>9}  {}\n", lengths[p], mean(fitted.by_program[p]),
                      mean(held_out.by_program[p]), outcome.times[p], programs[p].text()));
  }
  print(verdict + "\n");
  note(fmt::format("next: wavroute generate {} --program auto:{} --prompt \"...\"",
                   arguments.model.run.string(), arguments.out.string()));
  return 0;
}

}  // namespace

void add_program_train(CLI::App& program, Action& action) {
  auto* command = program.add_subcommand(
      "train", "Fit a predictor that chooses a program for each text from its beginning");
  auto arguments = std::make_shared<TrainArguments>();
  add_model_arguments(*command, arguments->model, "auto");
  command->add_option("--data", arguments->data, "A text or a token file")->required();
  command->add_option("--out", arguments->out, "The predictor's file")->required();
  command->add_option("--budget", arguments->budget, "Programs that the search may evaluate")
      ->check(integer_from(2))
      ->capture_default_str();
  command->add_option("--tokens", arguments->tokens, "Tokens to search on")
      ->check(integer_from(1))
      ->capture_default_str();
  command
      ->add_option("--texts", arguments->texts,
                   "Texts after them: half to fit to, half to say whether it helps")
      ->check(integer_from(8))
      ->capture_default_str();
  command->add_option("--prompt", arguments->prompt, "Tokens of a text that the choice sees")
      ->check(integer_from(1))
      ->capture_default_str();
  command->add_option("--length", arguments->length, "Tokens after it that are scored")
      ->check(integer_from(1))
      ->capture_default_str();
  command->add_option("--programs", arguments->programs, "To choose from")
      ->check(integer_from(2, 64))
      ->capture_default_str();
  command
      ->add_option("--at-most", arguments->at_most,
                   "Layers of the fixed program to beat; 0: three quarters of the model's")
      ->check(integer_from(0))
      ->capture_default_str();
  command->add_option("--seed", arguments->seed, "Of the search")->capture_default_str();
  command->add_flag("--json", arguments->json, "Print one JSON object");
  command->footer(
      "Examples:\n"
      "    wavroute program train runs/demo --data valid.txt --out p.json\n"
      "    wavroute generate runs/demo --program auto:p.json --prompt \"...\"");
  command->callback([&action, arguments] { action = [arguments] { return train(*arguments); }; });
}

}  // namespace wavroute::app
