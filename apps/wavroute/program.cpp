#include "program.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>

#include "base/numbers.h"
#include "base/output.h"
#include "text_arguments.h"
#include "wavroute/error.h"

namespace wavroute::app {
namespace {

constexpr int64_t kTokensAtOnce = 2048;  // of a pass: bounds the memory of its logits

}  // namespace

ProgramSubject open_any_subject(const ModelArguments& model, const std::string& data,
                                int64_t context) {
  constexpr int64_t kUsualContext = 512;
  ProgramSubject subject{load(model), {}, context};
  subject.tokens = open_text(data, {"auto", "error"}, *subject.loaded.tokenizer);
  if (context == 0) {
    subject.context = std::min(subject.loaded.model->spec().model.context, kUsualContext);
  }
  return subject;
}

ProgramSubject open_subject(const ModelArguments& model, const std::string& data, int64_t context) {
  if (!model.program.empty() || !model.layers.empty()) {
    throw expected("a model without a program", "--program or --layers", {},
                   "this command looks for programs itself");
  }
  ProgramSubject subject = open_any_subject(model, data, context);
  const int64_t layers = subject.loaded.model->spec().model.layers;
  if (layers < 2) throw expected("a model of at least two layers", layers);
  subject.loaded.model->check_program(LayerProgram({0}, layers));
  return subject;
}

TokenView part_of(const ProgramSubject& subject, int64_t first, int64_t count) {
  if (first + count > subject.tokens.size()) {
    throw expected(fmt::format("a text of at least {} tokens", first + count),
                   fmt::format("{}", subject.tokens.size()), "in " + subject.tokens.name(),
                   "a longer text, or less of it: --help says how much is used");
  }
  return subject.tokens.slice(first, count);
}

Evaluation evaluate_program(const ProgramSubject& subject, const EvalWindows& windows,
                            const LayerProgram& program) {
  EvaluationOptions options;
  options.program = &program;
  options.rows = std::max<int64_t>(kTokensAtOnce / windows.context(), 1);
  return evaluate(*subject.loaded.model, windows, *subject.loaded.tokenizer, options);
}

ProgramLoss remembered_loss(const ProgramSubject& subject, int64_t tokens, int64_t expected) {
  struct Memory {
    EvalWindows windows;
    std::map<Layers, double> losses;
  };
  auto memory = std::make_shared<Memory>(
      Memory{EvalWindows(part_of(subject, 0, tokens + 1), subject.context, tokens), {}});
  return [memory, &subject, tokens, expected](const Layers& layers) {
    const auto [place, fresh] = memory->losses.try_emplace(layers, 0.0);
    if (!fresh) return place->second;
    const auto start = std::chrono::steady_clock::now();
    const int64_t all = subject.loaded.model->spec().model.layers;
    place->second = evaluate_program(subject, memory->windows, LayerProgram(layers, all)).loss;
    if (memory->losses.size() == 1) {
      const std::chrono::duration<double> one = std::chrono::steady_clock::now() - start;
      note(fmt::format("up to {} programs on {} tokens, about {}", expected,
                       format_count(static_cast<double>(tokens)),
                       format_duration(one.count() * static_cast<double>(expected))));
    }
    return place->second;
  };
}

void add_program(CLI::App& root, Action& action) {
  auto* command = root.add_subcommand("program", "Find out which layers a model needs");
  command->require_subcommand(1);
  add_program_search(*command, action);
  add_program_train(*command, action);
}

}  // namespace wavroute::app
