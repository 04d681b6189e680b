// wavroute generate: streams text from a model.
#include "model/generate.h"

#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "command.h"
#include "common.h"
#include "train/process.h"
#include "wavroute/error.h"

namespace wavroute::app {
namespace {

struct GenerateArguments {
  ModelArguments model;
  std::string prompt;
  int64_t tokens = 256;
  Sampling sampling;
  bool json = false;
};

int run(const GenerateArguments& arguments) {
  check(arguments.sampling);
  if (arguments.tokens < 1) {
    throw UserError(
        fmt::format("--tokens of at least 1 was expected, {} was given", arguments.tokens));
  }
  const LoadedModel loaded = load(arguments.model);
  const std::vector<uint32_t> prompt = loaded.tokenizer->encode(arguments.prompt, "--prompt");
  if (prompt.empty()) {
    throw UserError("a --prompt of at least one character was expected, an empty one was given");
  }
  const StopSignal stop;
  StreamDecoder decoder(loaded.tokenizer);
  std::string text;
  const auto show = [&](const std::string& piece) {
    text += piece;
    if (arguments.json) return;
    fmt::print("{}", piece);
    std::fflush(stdout);
  };
  if (!arguments.json) fmt::print("{}", arguments.prompt);
  const GenerationResult result =
      generate(*loaded.model, prompt, arguments.tokens, arguments.sampling,
               loaded.program_or_null(), {}, [&](uint32_t token) {
                 show(decoder.feed(token));
                 return !StopSignal::requested();
               });
  show(decoder.finish());
  const auto count = static_cast<double>(result.ids.size());
  const double rate = result.ids.size() > 1 ? (count - 1) / result.decode_seconds : 0.0;
  if (arguments.json) {
    nlohmann::ordered_json object = {{"prompt", arguments.prompt},
                                     {"text", text},
                                     {"tokens", result.ids.size()},
                                     {"prompt_tokens", prompt.size()},
                                     {"prefill_seconds", result.prefill_seconds},
                                     {"tokens_per_s", rate}};
    if (result.mean_depth > 0.0) object["mean_depth"] = result.mean_depth;
    fmt::print("{}\n", object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    return 0;
  }
  fmt::print("\n");
  std::string depth;
  if (result.mean_depth > 0.0) depth = fmt::format(", {:.2f} layers/token", result.mean_depth);
  fmt::print(stderr, "{} tokens, {:.1f} tokens/s after a prompt of {} in {:.0f} ms{}\n",
             result.ids.size(), rate, prompt.size(), 1e3 * result.prefill_seconds, depth);
  return 0;
}

}  // namespace

void add_generate(CLI::App& root, Action& action) {
  auto* command = root.add_subcommand("generate", "Stream text from a model");
  auto arguments = std::make_shared<GenerateArguments>();
  add_model_arguments(*command, arguments->model, "auto");
  command->add_option("--prompt", arguments->prompt, "The text to continue")->required();
  command->add_option("-n,--tokens", arguments->tokens, "New tokens")->capture_default_str();
  command->add_option("--temperature", arguments->sampling.temperature, "0: the likeliest token")
      ->capture_default_str();
  command->add_option("--top-k", arguments->sampling.top_k, "0: all")->capture_default_str();
  command->add_option("--top-p", arguments->sampling.top_p)->capture_default_str();
  command->add_option("--seed", arguments->sampling.seed)->capture_default_str();
  command->add_flag("--json", arguments->json, "One JSON object at the end, no stream");
  command->callback([&action, arguments] { action = [arguments] { return run(*arguments); }; });
}

}  // namespace wavroute::app
