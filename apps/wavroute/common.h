// What several subcommands share.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "io/checkpoint.h"
#include "model/program_choice.h"
#include "wavroute/decoder.h"
#include "wavroute/tokenizer.h"

namespace wavroute::app {

// A model that a command only reads: RUN and how to run it.
struct ModelArguments {
  std::filesystem::path run;
  std::string checkpoint;            // "", "best" or a step
  std::string precision;             // "auto", "fp32", "bf16", or "q8_0" where that is allowed
  std::string program;               // layer program, @FILE, auto:FILE; empty = all layers
  std::string layers;                // "every-other" or a list: the same in the terms of pruning
  std::string tokenizer;             // of a folder without a tokenizer of ours: "bytes"
  std::vector<std::string> options;  // residual options to change: "gate_reuse=prompt"
  std::string device = "auto";
  int threads = 0;
};

// Adds RUN and the flags of ModelArguments. `precision` is the default; takes_q8: of a command that
// runs the model with a cache alone.
void add_model_arguments(CLI::App& command, ModelArguments& arguments, const std::string& precision,
                         bool takes_q8 = false);

// Changes as --residual takes them, "gate_reuse=prompt", into the options of a scheme.
void change_options(const std::string& scheme, Options& options,
                    const std::vector<std::string>& changes);

struct LoadedModel {
  std::filesystem::path folder;
  std::unique_ptr<Decoder> model;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::optional<LayerProgram> program;
  std::optional<ProgramChoice> choice;  // --program auto:FILE
  uint64_t free_memory = 0;             // bytes on the model's device, with the model loaded

  [[nodiscard]] const LayerProgram* program_or_null() const {
    return program ? &*program : nullptr;
  }
};

// Throws UserError for what does not fit together: the tokenizer and the vocabulary, the program
// and the scheme; for a choice of programs, unless the command makes one for each of its texts.
[[nodiscard]] LoadedModel load(const ModelArguments& arguments, bool takes_choice = false);

// UserError or Failure where a file can't be written there: before the minutes of work that it
// comes of. Nothing for an empty path.
void check_writable(const std::filesystem::path& path);

// Prints the document on one line. Bytes of it that are no UTF-8, in paths for instance, are
// mended.
void print_line(const nlohmann::ordered_json& document);

// What RunFolder::sweep() left to whoever wrote it, in words; empty where that is nothing.
[[nodiscard]] std::string left_half_written(const std::vector<std::filesystem::path>& left);

// Says on stderr that a checkpoint was passed over, and why.
void note_skipped(const Checkpoint& checkpoint, const std::string& reason);

// This program, to be started again as a child.
[[nodiscard]] std::string own_path();

}  // namespace wavroute::app
