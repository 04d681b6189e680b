// wavroute generate: streams text from a model, or continues many prompts at once.
#include "model/generate.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "base/lines.h"
#include "base/output.h"
#include "command.h"
#include "common.h"
#include "config/end_tokens.h"
#include "continuing.h"
#include "io/file.h"
#include "train/process.h"
#include "validators.h"
#include "wavroute/error.h"

namespace wavroute::app {
namespace {

struct GenerateArguments {
  ModelArguments model;
  std::optional<std::string> prompt;
  std::string prompts;  // a file
  int64_t tokens = 256;
  Sampling sampling;
  std::vector<std::string> stops;
  bool ignore_eos = false;
  bool json = false;
};

constexpr size_t kMostPromptBytes = size_t{64} << 20;  // of a file of prompts

// A prompt a line; an empty line is none.
std::vector<std::string> read_prompts(const std::string& path) {
  const std::string text = read_file(path, kMostPromptBytes);
  std::vector<std::string> prompts;
  for (const std::string_view line : lines_of(text)) {
    if (!line.empty()) prompts.emplace_back(line);
  }
  if (prompts.empty()) throw expected("a prompt a line", "none", "in " + path);
  return prompts;
}

struct Prompts {
  std::vector<std::string> texts;
  std::vector<std::vector<uint32_t>> ids;
};

Prompts encode(const GenerateArguments& arguments, const Tokenizer& tokenizer) {
  Prompts prompts;
  prompts.texts = arguments.prompt ? std::vector<std::string>{*arguments.prompt}
                                   : read_prompts(arguments.prompts);
  for (const std::string& text : prompts.texts) {
    prompts.ids.push_back(
        tokenizer.encode_prompt(text, arguments.prompt ? "--prompt" : "--prompts"));
    if (prompts.ids.back().empty()) {
      throw expected("a --prompt of at least one character", "an empty one");
    }
  }
  return prompts;
}

// The program of each prompt; null: that of the command line, or all layers.
std::vector<const LayerProgram*> programs_of(const LoadedModel& loaded, const Prompts& prompts) {
  std::vector<const LayerProgram*> programs(prompts.ids.size(), loaded.program_or_null());
  for (size_t i = 0; loaded.choice && i < programs.size(); ++i) {
    const std::vector<int64_t> ids(prompts.ids[i].begin(), prompts.ids[i].end());
    programs[i] = &loaded.choice->program_for(*loaded.model, ids);
  }
  return programs;
}

// Prompts of one program are continued together.
GenerationResult generate_by_program(const LoadedModel& loaded, const Prompts& prompts,
                                     const std::vector<const LayerProgram*>& programs,
                                     const GenerateArguments& arguments, const OnToken& on_token) {
  std::map<const LayerProgram*, std::vector<size_t>> groups;
  for (size_t i = 0; i < programs.size(); ++i) groups[programs[i]].push_back(i);
  GenerationResult all;
  all.ids.resize(programs.size());
  for (const auto& [program, members] : groups) {
    if (StopSignal::requested()) break;
    std::vector<std::vector<uint32_t>> ids;
    for (const size_t i : members) ids.push_back(prompts.ids[i]);
    const auto& indices = members;
    GenerationResult some =
        generate(*loaded.model, ids, arguments.tokens, arguments.sampling, program, {},
                 [&](size_t index, uint32_t token) { return on_token(indices[index], token); });
    for (size_t k = 0; k < members.size(); ++k) all.ids[members[k]] = std::move(some.ids[k]);
    all.prefill_seconds += some.prefill_seconds;
    all.decode_seconds += some.decode_seconds;
    all.cache_bytes += some.cache_bytes;
    if (all.trouble.empty()) all.trouble = some.trouble;
    all.mean_depth = some.mean_depth;  // act alone has one, and takes no programs
  }
  return all;
}

void print_json(const Prompts& prompts, const std::vector<Writer>& writers,
                const std::vector<const LayerProgram*>& programs, const GenerationResult& result,
                double rate) {
  for (size_t i = 0; i < writers.size(); ++i) {
    nlohmann::ordered_json object = {{"prompt", prompts.texts[i]},
                                     {"text", writers[i].text()},
                                     {"ids", result.ids[i]},
                                     {"prompt_ids", prompts.ids[i]},
                                     {"tokens", result.ids[i].size()},
                                     {"prompt_tokens", prompts.ids[i].size()},
                                     {"cache_bytes", result.cache_bytes},
                                     {"prefill_seconds", result.prefill_seconds},
                                     {"tokens_per_s", rate}};
    if (programs[i] != nullptr) object["program"] = programs[i]->text();
    if (result.mean_depth > 0.0) object["mean_depth"] = result.mean_depth;
    print_line(object);
  }
}

int run(const GenerateArguments& arguments) {
  check(arguments.sampling);
  if (arguments.prompt.has_value() == !arguments.prompts.empty()) {
    throw expected("either --prompt or --prompts", arguments.prompt ? "both" : "neither");
  }
  const LoadedModel loaded = load(arguments.model, /*takes_choice=*/true);
  const Prompts prompts = encode(arguments, *loaded.tokenizer);
  int64_t longest = 0;
  for (const auto& ids : prompts.ids) longest = std::max(longest, std::ssize(ids));
  check_cache(loaded, prompts_at_once(*loaded.model, prompts.ids.size()), longest,
              arguments.tokens);
  note_context(loaded, longest + arguments.tokens);
  std::vector<uint32_t> ends;
  if (!arguments.ignore_eos) ends = read_end_tokens(loaded.folder);
  const StopSignal stop;
  const bool streams = prompts.ids.size() == 1 && !arguments.json;
  const auto show = [&](const std::string& piece) {
    if (!streams) return;
    print(piece);
    flush();
  };
  std::vector<Writer> writers(prompts.ids.size(), Writer(loaded, arguments.stops));
  bool has_ended = false;
  if (streams) print(prompts.texts[0]);
  const std::vector<const LayerProgram*> programs = programs_of(loaded, prompts);
  const GenerationResult result =
      generate_by_program(loaded, prompts, programs, arguments, [&](size_t index, uint32_t token) {
        has_ended = std::ranges::find(ends, token) != ends.end();
        if (!has_ended) show(writers[index].feed(token));
        has_ended = has_ended || writers[index].has_stopped();
        return !has_ended && !StopSignal::requested();
      });
  for (Writer& writer : writers) show(writer.finish());
  size_t count = 0;
  for (const auto& ids : result.ids) count += ids.size();
  const auto later = static_cast<double>(count - result.ids.size());
  const double rate = later > 0 ? later / result.decode_seconds : 0.0;
  if (arguments.json) {
    print_json(prompts, writers, programs, result, rate);
    note_trouble(result.trouble);
    return 0;
  }
  for (size_t i = 0; !streams && i < writers.size(); ++i) {
    print(prompts.texts[i] + writers[i].text() + "\n");
  }
  if (streams) print("\n");
  std::string depth;
  if (result.mean_depth > 0.0) depth = fmt::format(", {:.2f} layers/token", result.mean_depth);
  finish_output();  // the text stands before what is said about it
  note(fmt::format("{} tokens{}, {:.1f} tokens/s after {} in {:.0f} ms{}", count,
                   streams && has_ended ? " up to the end of the text" : "", rate,
                   prompts.ids.size() == 1 ? fmt::format("a prompt of {}", longest)
                                           : fmt::format("{} prompts", prompts.ids.size()),
                   1e3 * result.prefill_seconds, depth));
  note_trouble(result.trouble);
  return 0;
}

}  // namespace

void add_generate(CLI::App& root, Action& action) {
  auto* command = root.add_subcommand("generate", "Stream text from a model");
  auto arguments = std::make_shared<GenerateArguments>();
  add_model_arguments(*command, arguments->model, "auto", /*takes_q8=*/true);
  command->add_option("--prompt", arguments->prompt, "The text to continue");
  command->add_option("--prompts", arguments->prompts,
                      "A file with a prompt a line, which are continued together");
  command->add_option("-n,--tokens", arguments->tokens, "New tokens, at most")
      ->check(integer_from(1))
      ->capture_default_str();
  add_sampling(*command, arguments->sampling);
  command->add_option("--stop", arguments->stops, "End before this string; repeatable")
      ->allow_extra_args(false);
  command->add_flag("--ignore-eos", arguments->ignore_eos,
                    "Go on after the token that ends the model's texts (eos_token_id)");
  command->add_flag("--json", arguments->json,
                    "One JSON object for each prompt at the end, no stream");
  command->footer(
      "Examples:\n"
      "    wavroute generate runs/tiny --prompt \"def \" -n 100\n"
      "    wavroute generate runs/tiny --prompts prompts.txt --temperature 0 --json\n"
      "    wavroute generate model --precision q8_0 --prompt \"Once\" --stop \".\"");
  command->callback([&action, arguments] { action = [arguments] { return run(*arguments); }; });
}

}  // namespace wavroute::app
