// wavroute generate: streams text from a model.
#include "model/generate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/numbers.h"
#include "base/output.h"
#include "command.h"
#include "common.h"
#include "config/end_tokens.h"
#include "train/process.h"
#include "validators.h"
#include "wavroute/error.h"

namespace wavroute::app {
namespace {

struct GenerateArguments {
  ModelArguments model;
  std::string prompt;
  int64_t tokens = 256;
  Sampling sampling;
  bool ignore_eos = false;
  bool json = false;
};

// The cache of keys and values is allocated for all tokens in advance.
void check_cache(const LoadedModel& loaded, int64_t prompt, int64_t tokens) {
  const double a_token = cache_bytes_per_token(*loaded.model, loaded.program_or_null());
  const double most = std::floor(static_cast<double>(loaded.free_memory) / a_token);
  if (static_cast<double>(prompt) + static_cast<double>(tokens) <= most) return;
  throw expected(fmt::format("a cache of keys and values within the {} that are free",
                             format_bytes(static_cast<double>(loaded.free_memory))),
                 fmt::format("{} for --tokens {} after a prompt of {}",
                             format_bytes(a_token * (static_cast<double>(prompt) +
                                                     static_cast<double>(tokens))),
                             tokens, prompt),
                 {},
                 most > static_cast<double>(prompt)
                     ? fmt::format("--tokens {:.0f} fits", most - static_cast<double>(prompt))
                     : "a shorter prompt, or a machine with more memory");
}

int run(const GenerateArguments& arguments) {
  check(arguments.sampling);
  const LoadedModel loaded = load(arguments.model);
  const std::vector<uint32_t> prompt = loaded.tokenizer->encode(arguments.prompt, "--prompt");
  if (prompt.empty()) {
    throw expected("a --prompt of at least one character", "an empty one");
  }
  check_cache(loaded, static_cast<int64_t>(prompt.size()), arguments.tokens);
  std::vector<uint32_t> ends;
  if (!arguments.ignore_eos) ends = read_end_tokens(loaded.folder);
  bool has_ended = false;
  const StopSignal stop;
  StreamDecoder decoder(loaded.tokenizer);
  std::string text;
  const auto show = [&](const std::string& piece) {
    text += piece;
    if (arguments.json) return;
    print(piece);
    flush();
  };
  if (!arguments.json) print(arguments.prompt);
  const GenerationResult result =
      generate(*loaded.model, prompt, arguments.tokens, arguments.sampling,
               loaded.program_or_null(), {}, [&](uint32_t token) {
                 has_ended = std::ranges::find(ends, token) != ends.end();
                 if (!has_ended) show(decoder.feed(token));
                 return !has_ended && !StopSignal::requested();
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
    print(object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
    return 0;
  }
  print("\n");
  std::string depth;
  if (result.mean_depth > 0.0) depth = fmt::format(", {:.2f} layers/token", result.mean_depth);
  finish_output();  // the text stands before what is said about it
  note(fmt::format("{} tokens{}, {:.1f} tokens/s after a prompt of {} in {:.0f} ms{}",
                   result.ids.size(), has_ended ? " up to the end of the text" : "", rate,
                   prompt.size(), 1e3 * result.prefill_seconds, depth));
  return 0;
}

}  // namespace

void add_generate(CLI::App& root, Action& action) {
  auto* command = root.add_subcommand("generate", "Stream text from a model");
  auto arguments = std::make_shared<GenerateArguments>();
  add_model_arguments(*command, arguments->model, "auto");
  command->add_option("--prompt", arguments->prompt, "The text to continue")->required();
  command->add_option("-n,--tokens", arguments->tokens, "New tokens")
      ->check(integer_from(1))
      ->capture_default_str();
  command
      ->add_option("--temperature", arguments->sampling.temperature,
                   "0: always the likeliest token")
      ->capture_default_str();
  command->add_option("--top-k", arguments->sampling.top_k, "Only the k likeliest tokens; 0: all")
      ->check(integer_from(0))
      ->capture_default_str();
  command
      ->add_option("--top-p", arguments->sampling.top_p,
                   "Only the likeliest tokens that together have this probability; 1: all")
      ->capture_default_str();
  command->add_option("--seed", arguments->sampling.seed, "Of the draws")
      ->check(integer_from(0))
      ->capture_default_str();
  command->add_flag("--ignore-eos", arguments->ignore_eos,
                    "Go on after the token that ends the model's texts (eos_token_id)");
  command->add_flag("--json", arguments->json, "One JSON object at the end, no stream");
  command->callback([&action, arguments] { action = [arguments] { return run(*arguments); }; });
}

}  // namespace wavroute::app
