#include "train/initial_weights.h"

#include <fmt/format.h>

#include "io/checkpoint_names.h"
#include "io/file.h"
#include "io/run_folder.h"
#include "model/model_folder.h"
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

}  // namespace

std::vector<std::string> check_initial_weights(const Session& session) {
  if (session.config.train.init.empty()) return {};
  const fs::path folder = folder_of(session.config);
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
  return other_constants(theirs.model, ours.model);
}

std::vector<std::string> load_initial_weights(Session& session) {
  std::vector<std::string> notes = check_initial_weights(session);
  if (session.config.train.init.empty()) return notes;
  load_parameters(*session.model, folder_of(session.config));
  session.init_sha256 = initial_weights_sha256(session.config);
  return notes;
}

std::string initial_weights_sha256(const Config& config) {
  return config.train.init.empty() ? std::string() : sha256_file(folder_of(config) / kModelFile);
}

}  // namespace wavroute
