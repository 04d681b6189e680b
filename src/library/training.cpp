#include "wavroute/training.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "formats/new_folder.h"
#include "io/checkpoint_names.h"
#include "model/model_folder.h"
#include "model/training_pass.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

constexpr int64_t kNotScored = -100;

std::string described(const at::Tensor& tensor) {
  if (!tensor.defined()) return "none";
  return fmt::format("[{}] {} on {}", fmt::join(tensor.sizes(), ", "),
                     c10::toString(tensor.scalar_type()), tensor.device().str());
}

void check_batch(const at::Tensor& batch, const char* name, const Decoder& model) {
  if (batch.defined() && batch.dim() == 2 && batch.numel() > 0 &&
      batch.scalar_type() == at::kLong && batch.device() == model.device()) {
    return;
  }
  throw expected(fmt::format("{} [B, T] of int64 on {}", name, model.device().str()),
                 described(batch));
}

// UserError where a number of `given` is no token.
void check_tokens(const at::Tensor& given, const char* name, const Decoder& model) {
  if (given.numel() == 0) return;
  const auto [least, most] = at::aminmax(given);
  const int64_t size = model.spec().vocab_size;
  for (const int64_t id : {least.item<int64_t>(), most.item<int64_t>()}) {
    if (id < 0 || id >= size) throw expected(fmt::format("{} from 0 to {}", name, size - 1), id);
  }
}

}  // namespace

BatchLoss add_gradients(Decoder& model, const at::Tensor& ids, const at::Tensor& targets,
                        const GradientOptions& options) {
  check_batch(ids, "ids", model);
  check_batch(targets, "targets", model);
  if (ids.sizes() != targets.sizes()) {
    throw expected("targets of the sizes of ids", described(targets), "for " + described(ids));
  }
  const at::Tensor scored = targets.masked_select(targets != kNotScored);
  if (scored.numel() == 0) throw expected("a target that is scored", "-100 alone");
  check_tokens(ids, "ids", model);
  check_tokens(scored, "targets", model);
  const auto count = static_cast<double>(scored.numel());
  PassOptions pass;
  pass.pass = {.training = true, .seed = options.seed, .progress = options.progress};
  pass.recompute = options.recompute;
  pass.loss_weight = options.weight / count;
  pass.auxiliary_weight = options.weight;
  const PassResult sums = training_pass(model, ids, targets, pass);
  return {sums.loss_sum / count, sums.auxiliary, sums.mean_depth};
}

void save_model(const Decoder& model, const Tokenizer& tokenizer,
                const std::filesystem::path& folder, const Progress& progress) {
  NewFolder made(folder, /*flag=*/"");
  static_cast<void>(save_parameters(model, made.at() / kModelFile));
  nlohmann::json config = model_config(model, progress);
  if (const auto end = tokenizer.end_token()) config["eos_token_id"] = *end;
  write_file_atomic(made.at() / kConfigFile, config.dump(2) + "\n");
  write_file_atomic(made.at() / kTokenizerFile, tokenizer.to_json());
  made.commit();
}

}  // namespace wavroute
