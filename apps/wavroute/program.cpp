#include "program.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>

#include "base/numbers.h"
#include "base/output.h"
#include "data/corpus.h"
#include "train/program_losses.h"
#include "wavroute/error.h"

namespace wavroute::app {

ProgramSubject open_subject(const ModelArguments& model, const std::string& data, int64_t context) {
  if (!model.program.empty() || !model.layers.empty()) {
    throw expected("a model without a program", "--program or --layers", {},
                   "this command looks for programs itself");
  }
  ProgramSubject subject{load(model), {}, 0};
  const int64_t layers = subject.loaded.model->spec().model.layers;
  if (layers < 2) throw expected("a model of at least two layers", layers);
  subject.loaded.model->check_program(LayerProgram({0}, layers));
  subject.tokens =
      open_tokens(data, *subject.loaded.tokenizer, DataFormat::kAuto, UnknownText::kError, nullptr);
  const int64_t own = subject.loaded.model->spec().model.context;
  subject.context = context > 0 ? context : std::min<int64_t>(own, 512);
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

ProgramLoss remembered_loss(const ProgramSubject& subject, int64_t tokens, int64_t expected) {
  struct Memory {
    EvalWindows windows;
    std::map<Layers, double> losses;
  };
  auto memory = std::make_shared<Memory>(
      Memory{EvalWindows(part_of(subject, 0, tokens + 1), subject.context, tokens), {}});
  const Decoder& model = *subject.loaded.model;
  return [memory, &model, tokens, expected](const Layers& layers) {
    const auto [place, fresh] = memory->losses.try_emplace(layers, 0.0);
    if (!fresh) return place->second;
    const auto start = std::chrono::steady_clock::now();
    place->second =
        program_loss(model, memory->windows, LayerProgram(layers, model.spec().model.layers));
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
