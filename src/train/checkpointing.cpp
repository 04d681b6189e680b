#include "train/checkpointing.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "io/checkpoint.h"
#include "io/checkpoint_names.h"
#include "io/file.h"
#include "model/model_folder.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* kFirst = "exp_avg.";
constexpr const char* kSecond = "exp_avg_sq.";

// read_state has checked the type of every value present.
const Json& required(const Json& state, const char* key, const fs::path& folder) {
  const auto found = state.find(key);
  if (found != state.end()) return *found;
  throw expected(fmt::format("'{}'", key), "none", "in " + (folder / kStateFile).string(),
                 "use another checkpoint: --resume STEP");
}

int64_t integer(const Json& state, const char* key, const fs::path& folder) {
  return required(state, key, folder).get<int64_t>();
}

std::string text(const Json& state, const char* key, const fs::path& folder) {
  return required(state, key, folder).get<std::string>();
}

bool is_finite(const at::Tensor& flat) {
  if (flat.numel() == 0) return true;
  const auto [least, most] = at::aminmax(flat);  // both NaN if one is; without a copy of flat
  return std::isfinite(least.item<double>()) && std::isfinite(most.item<double>());
}

}  // namespace

std::optional<std::string> non_finite_part(const Decoder& model, const AdamW& optimizer) {
  for (const FlatGroup& group : model.parameters().groups()) {
    if (!is_finite(group.value)) return "parameters";
  }
  for (const auto* moments : {&optimizer.first_moments(), &optimizer.second_moments()}) {
    if (!std::ranges::all_of(*moments, is_finite)) return "moments";
  }
  return std::nullopt;
}

fs::path save_checkpoint(const fs::path& run, const Decoder& model, const AdamW& optimizer,
                         const Tokenizer& tokenizer, const RunState& state, int64_t keep,
                         const OnSkippedCheckpoint& on_left) {
  CheckpointWriter writer(run, state.progress.step);
  writer.add_digest(kModelFile, save_parameters(model, writer.folder() / kModelFile));
  TensorFile moments;
  moments.add(model.parameters(), optimizer.first_moments(), kFirst);
  moments.add(model.parameters(), optimizer.second_moments(), kSecond);
  writer.add_digest(kOptimizerFile, moments.write(writer.folder() / kOptimizerFile, {}));
  Json config = model_config(model, state.progress);
  // As in other models' folders; a generation_config.json goes before it.
  if (const auto end = tokenizer.end_token()) config["eos_token_id"] = *end;
  writer.write(kConfigFile, config.dump(2) + "\n");
  writer.write(kTokenizerFile, tokenizer.to_json());
  for (const auto& [name, content] : state.companions) writer.write(name, content);
  Json document = {{"steps", state.run_steps > 0 ? state.run_steps : state.progress.steps},
                   {"schedule_steps", state.progress.steps},
                   {"tokens", state.tokens},
                   {"updates", optimizer.updates()},
                   {"train_sha256", state.train_sha256},
                   {"valid_sha256", state.valid_sha256},
                   {"val_loss", nullptr},
                   {"bits_per_byte", nullptr}};
  if (!state.init_sha256.empty()) document["init_sha256"] = state.init_sha256;
  if (state.val_loss) document["val_loss"] = *state.val_loss;
  if (state.bits_per_byte) document["bits_per_byte"] = *state.bits_per_byte;
  fs::path folder = writer.finish(std::move(document));
  retain_checkpoints(run, keep, state.progress.step, on_left);
  return folder;
}

void require_same_tokenizer(const Tokenizer& stored, const Tokenizer& given,
                            const std::string& whose, const fs::path& folder,
                            const std::string& hint) {
  if (stored.hash() == given.hash()) return;
  throw expected(
      fmt::format("the tokenizer {}, {} of {} tokens", whose, stored.name(), stored.vocab_size()),
      fmt::format("another, {} of {} tokens", given.name(), given.vocab_size()),
      fmt::format("in {}", folder.string()), hint);
}

void check_same_tokenizer(const fs::path& folder, const Tokenizer& given) {
  require_same_tokenizer(*load_tokenizer(folder / kTokenizerFile), given, "that the run began with",
                         folder,
                         "restore the old text and tokenizer, or give another --out for a new run");
}

void check_same_text(const fs::path& folder, const RunState& given, const DataConfig& data) {
  const Json document = read_state(folder);
  const std::string& valid = data.valid.empty() ? data.train : data.valid;
  for (const auto& [key, digest, source] :
       {std::tuple("train_sha256", given.train_sha256, data.train),
        std::tuple("valid_sha256", given.valid_sha256, valid)}) {
    const std::string stored = text(document, key, folder);
    if (stored == digest) continue;
    throw expected(fmt::format("the text that the run began with, {} = {}", key, stored), digest,
                   "in " + source, "restore the old text, or give another --out for a new run");
  }
}

RunState load_checkpoint(const fs::path& folder, Decoder& model, AdamW& optimizer) {
  load_parameters(model, folder);
  const SafetensorsFile moments(folder / kOptimizerFile);
  read_tensors(moments, model.parameters(), optimizer.first_moments(), kFirst, /*convert=*/false);
  read_tensors(moments, model.parameters(), optimizer.second_moments(), kSecond,
               /*convert=*/false);
  const Json document = read_state(folder);
  optimizer.set_updates(integer(document, "updates", folder));
  RunState state;
  state.train_sha256 = text(document, "train_sha256", folder);
  state.valid_sha256 = text(document, "valid_sha256", folder);
  // Checkpoints from before this key have none.
  if (document.contains("init_sha256")) state.init_sha256 = text(document, "init_sha256", folder);
  state.companions = read_companions(folder);
  state.progress = progress_of(folder);
  state.run_steps = integer(document, "steps", folder);
  state.tokens = integer(document, "tokens", folder);
  const auto number = [&](const char* key) {
    const auto found = document.find(key);
    return found != document.end() && found->is_number() ? std::optional(found->get<double>())
                                                         : std::nullopt;
  };
  state.val_loss = number("val_loss");
  state.bits_per_byte = number("bits_per_byte");
  if (const auto part = non_finite_part(model, optimizer)) {
    throw expected("finite " + *part, "others", "in " + folder.string(),
                   "continue from an earlier checkpoint: --resume STEP");
  }
  return state;
}

void check_tokens(const fs::path& folder, const RunState& state, int64_t tokens_per_step) {
  const int64_t step = state.progress.step;
  // A count beyond what int64_t holds would have been refused as a number.
  if (state.tokens % tokens_per_step == 0 && state.tokens / tokens_per_step == step) return;
  throw expected(fmt::format("'tokens' of {} steps of {}", step, tokens_per_step), state.tokens,
                 "in " + (folder / kStateFile).string(), "use another checkpoint: --resume STEP");
}

Progress progress_of(const fs::path& folder) {
  if (!is_there(folder / kStateFile)) return {};
  const Json document = read_state(folder);
  const int64_t steps = integer(document, "steps", folder);
  // In checkpoints from before this key, the steps are those planned first.
  const bool has_plan = document.contains("schedule_steps");
  return {integer(document, "step", folder),
          has_plan ? integer(document, "schedule_steps", folder) : steps};
}

}  // namespace wavroute
