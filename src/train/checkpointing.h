// The state of a run on disk, so that a run that was killed continues bit for bit.
#pragma once

#include <filesystem>
#include <optional>

#include "io/checkpoint.h"
#include "io/companions.h"
#include "train/adamw.h"
#include "wavroute/config.h"
#include "wavroute/decoder.h"
#include "wavroute/tokenizer.h"

namespace wavroute {

// The state of a run, besides parameters and moments.
struct RunState {
  // The step, and the steps that the run was planned for at first: fractions of the steps (warm-up,
  // cosine, frozen gates) don't change when a run gets more.
  Progress progress;
  std::string train_sha256, valid_sha256;  // of the text
  int64_t tokens = 0;
  std::optional<double> val_loss;  // evaluated at this very step
  std::optional<double> bits_per_byte;
  int64_t run_steps = 0;         // of the run now; 0: as planned at first
  std::string init_sha256 = "";  // of the weights of train.init; empty: none
  Companions companions = {};    // of the model of train.init
};

// Writes checkpoints/step_N with config.json, model.safetensors, optimizer.safetensors,
// tokenizer.json, the companions and state.json, then removes old ones; one that can't be removed
// is told to `on_left`. Returns its folder.
std::filesystem::path save_checkpoint(const std::filesystem::path& run, const Decoder& model,
                                      const AdamW& optimizer, const Tokenizer& tokenizer,
                                      const RunState& state, int64_t keep,
                                      const OnSkippedCheckpoint& on_left = {});

// UserError where `given` is not the tokenizer `stored` of a folder. `whose`: "that the run began
// with".
void require_same_tokenizer(const Tokenizer& stored, const Tokenizer& given,
                            const std::string& whose, const std::filesystem::path& folder,
                            const std::string& hint);
// UserError where the checkpoint's run had another tokenizer.
void check_same_tokenizer(const std::filesystem::path& folder, const Tokenizer& given);

// UserError where the checkpoint's run had another text than `given`, which came from `data`.
void check_same_text(const std::filesystem::path& folder, const RunState& given,
                     const DataConfig& data);

// Which part of a model in training has values that are not finite: "parameters", "moments" or
// nothing. No checkpoint is made of such a model.
[[nodiscard]] std::optional<std::string> non_finite_part(const Decoder& model,
                                                         const AdamW& optimizer);

// Fills the model and the optimizer from a checkpoint, which must be of the same model and finite,
// and whose state.json must have every value that a resume needs.
[[nodiscard]] RunState load_checkpoint(const std::filesystem::path& folder, Decoder& model,
                                       AdamW& optimizer);

// UserError if a checkpoint's tokens are not its steps times `tokens_per_step`.
void check_tokens(const std::filesystem::path& folder, const RunState& state,
                  int64_t tokens_per_step);

// Where training stood when this folder was written, with the steps planned at first; {0, 0} for a
// folder without a state.
[[nodiscard]] Progress progress_of(const std::filesystem::path& folder);

}  // namespace wavroute
