#include "train/initial_weights.h"

#include <fmt/format.h>

#include <memory>

#include "config/literal.h"
#include "io/checkpoint_names.h"
#include "io/file.h"
#include "io/run_folder.h"
#include "model/model_folder.h"
#include "train/checkpointing.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;

fs::path folder_of(const Config& config) { return resolve_run(config.train.init); }

// Constants of the function that no tensor shows.
std::vector<std::string> other_constants(const ModelConfig& theirs, const ModelConfig& ours) {
  std::vector<std::string> notes;
  const auto compare = [&](const char* key, double there, double here) {
    if (there == here) return;
    notes.push_back(fmt::format("model.{} is {}, train.init was made with {}", key, here, there));
  };
  compare("rope_theta", theirs.rope_theta, ours.rope_theta);
  compare("rms_norm_eps", theirs.rms_norm_eps, ours.rms_norm_eps);
  // These follow from shapes only together: as many heads of half the width have the same.
  compare("heads", static_cast<double>(theirs.heads), static_cast<double>(ours.heads));
  if (!(theirs.rope_scaling == ours.rope_scaling)) {
    notes.emplace_back("model.rope_scaling is not that of train.init");
  }
  return notes;
}

// How the residual stream is read and written, where the tensors are the same.
std::vector<std::string> other_residual(const DecoderSpec& theirs, const DecoderSpec& ours) {
  const auto note = [](const std::string& key, const OptionValue& here, const OptionValue& there) {
    return fmt::format("residual.{} is {}, train.init was made with {}", key, literal(here),
                       literal(there));
  };
  if (theirs.scheme != ours.scheme) return {note("scheme", ours.scheme, theirs.scheme)};
  std::vector<std::string> notes;
  for (const auto& [key, here] : ours.options) {
    const auto there = theirs.options.find(key);
    if (there == theirs.options.end() || there->second == here) continue;
    notes.push_back(note(key, here, there->second));
  }
  return notes;
}

// The rows of the embedding are those of one tokenizer. A folder without one that can be read says
// nothing about it.
void check_tokenizer(const fs::path& folder, const Tokenizer& ours) {
  const fs::path file = folder / kTokenizerFile;
  if (!is_there(file)) return;
  std::shared_ptr<const Tokenizer> theirs;
  try {
    theirs = load_tokenizer(file);
  } catch (const UserError&) {
    return;
  }
  require_same_tokenizer(
      *theirs, ours, "of train.init", folder,
      fmt::format("set data.tokenizer to {}, or prepare the text with it", file.string()));
}

std::vector<std::string> check(const Session& session, const fs::path& folder) {
  const DecoderSpec theirs = read_model_config(folder);
  const DecoderSpec& ours = session.model->spec();
  try {
    check_parameters(*session.model, folder);
  } catch (const UserError& error) {
    const std::string hint =
        theirs.scheme == ours.scheme
            ? "the sizes in [model] and data.tokenizer must be those of the model there"
            : fmt::format(
                  "it is a model of scheme {}: wavroute import FOLDER --to {} makes one to "
                  "start from",
                  theirs.scheme, ours.scheme);
    throw UserError(fmt::format("{}, for train.init", error.what()), hint);
  }
  check_tokenizer(folder, *session.corpus.tokenizer);
  std::vector<std::string> notes = other_constants(theirs.model, ours.model);
  for (std::string& note : other_residual(theirs, ours)) notes.push_back(std::move(note));
  return notes;
}

}  // namespace

std::vector<std::string> check_initial_weights(const Session& session) {
  if (session.config.train.init.empty()) return {};
  return check(session, folder_of(session.config));
}

std::vector<std::string> load_initial_weights(Session& session) {
  if (session.config.train.init.empty()) return {};
  // Resolved once: a run in training has another newest checkpoint the next time.
  const fs::path folder = folder_of(session.config);
  std::vector<std::string> notes = check(session, folder);
  load_parameters(*session.model, folder);
  session.init_sha256 = sha256_file(folder / kModelFile);
  session.companions = read_companions(folder);
  return notes;
}

std::string initial_weights_sha256(const Config& config) {
  return config.train.init.empty() ? std::string() : sha256_file(folder_of(config) / kModelFile);
}

}  // namespace wavroute
