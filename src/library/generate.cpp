#include "wavroute/generate.h"

#include <fmt/format.h>

#include <algorithm>

#include "config/end_tokens.h"
#include "io/checkpoint_names.h"
#include "io/run_folder.h"
#include "model/generate.h"
#include "model/model_folder.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;

TextModel read_text_model(const fs::path& folder, const LoadOptions& options) {
  const at::Device device(options.device == DeviceKind::kCuda ? at::kCUDA : at::kCPU);
  TextModel model{load_model(folder, options.precision, device),
                  load_tokenizer(folder / kTokenizerFile), read_end_tokens(folder)};
  const int64_t tokens = model.tokenizer->vocab_size(), rows = model.decoder->spec().vocab_size;
  if (tokens != rows) {
    throw expected(fmt::format("a tokenizer of {} tokens, as the model has", rows),
                   fmt::format("'{}' of {}", model.tokenizer->name(), tokens),
                   "in " + folder.string());
  }
  return model;
}

}  // namespace

TextModel load_text_model(const fs::path& run, const LoadOptions& options) {
  TextModel model;
  read_run_folder(run, options.checkpoint, {},
                  [&](const fs::path& folder) { model = read_text_model(folder, options); });
  return model;
}

std::string continue_text(const TextModel& model, std::string_view prompt,
                          const TextOptions& options, const OnText& on_text) {
  const Sampling sampling{.temperature = options.temperature,
                          .top_k = options.top_k,
                          .top_p = options.top_p,
                          .min_p = options.min_p,
                          .repetition_penalty = options.repetition_penalty,
                          .seed = options.seed};
  check(sampling);
  if (options.tokens < 1) throw expected("at least 1 new token", options.tokens);
  const std::vector<uint32_t> ids = model.tokenizer->encode_prompt(prompt);
  if (ids.empty()) throw expected("a prompt of at least one token", "an empty one");
  StreamDecoder decoder(model.tokenizer, /*continues=*/true);
  std::string text;
  bool goes_on = true;
  const auto add = [&](const std::string& piece) {
    text += piece;
    if (!piece.empty() && goes_on && on_text) goes_on = on_text(piece);
  };
  static_cast<void>(generate(*model.decoder, {ids}, options.tokens, sampling, nullptr, {},
                             [&](size_t, uint32_t token) {
                               if (std::ranges::count(model.end_tokens, token) > 0) return false;
                               if (!model.tokenizer->is_special(token)) add(decoder.feed(token));
                               return goes_on;
                             }));
  add(decoder.finish());
  return text;
}

}  // namespace wavroute
