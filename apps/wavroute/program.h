// wavroute program search, wavroute program train: what they share.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "command.h"
#include "common.h"
#include "data/token_file.h"
#include "program/trials.h"
#include "train/evaluation.h"

namespace wavroute::app {

void add_program_search(CLI::App& program, Action& action);
void add_program_train(CLI::App& program, Action& action);

// A model and a text for it.
struct ProgramSubject {
  LoadedModel loaded;
  TokenView tokens;
  int64_t context = 0;  // of a window
};
// `context` 0: the model's, at most 512.
[[nodiscard]] ProgramSubject open_any_subject(const ModelArguments& model, const std::string& data,
                                              int64_t context);
// That of both commands: a model that takes programs, and is given none.
[[nodiscard]] ProgramSubject open_subject(const ModelArguments& model, const std::string& data,
                                          int64_t context);

// Loss of programs on the first `tokens` tokens of a text, each program evaluated once; says on
// stderr after the first how long `expected` of them will take.
[[nodiscard]] ProgramLoss remembered_loss(const ProgramSubject& subject, int64_t tokens,
                                          int64_t expected);

// The tokens [first, first + count) of the text; UserError where it is shorter.
[[nodiscard]] TokenView part_of(const ProgramSubject& subject, int64_t first, int64_t count);

// The loss of a program, and for how many layers a token of a model that halts.
[[nodiscard]] Evaluation evaluate_program(const ProgramSubject& subject, const EvalWindows& windows,
                                          const LayerProgram& program);

}  // namespace wavroute::app
