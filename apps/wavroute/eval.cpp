// wavroute eval: the loss of a model on any text.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/numbers.h"
#include "base/output.h"
#include "command.h"
#include "common.h"
#include "io/file.h"
#include "model/model_folder.h"
#include "text_arguments.h"
#include "train/batch.h"
#include "train/evaluation.h"
#include "validators.h"
#include "wavroute/error.h"

namespace wavroute::app {
namespace {

struct EvalArguments {
  ModelArguments model;
  std::string data;
  TextArguments text;
  std::filesystem::path logits;
  int64_t tokens = 0;
  int64_t batch = 8;
  int64_t context = 0;
  int64_t prompt = 0;
  bool json = false;
};

// ids [B,T] int64 and logits [B,T,V] float32 of the first batch.
void write_logits(const LoadedModel& loaded, const EvalWindows& windows,
                  const EvalArguments& arguments) {
  const at::Tensor ids = batch_of(windows, 0, std::min(arguments.batch, windows.count())).inputs;
  const ForwardResult out = loaded.model->forward(
      ids.to(loaded.model->device()), {{}, loaded.program_or_null(), nullptr, nullptr, false});
  TensorFile file;
  file.add("ids", ids);
  file.add("logits", out.logits.to(at::kFloat));
  file.write(followed_link(arguments.logits), {{"format", "pt"}});
}

int eval(const EvalArguments& arguments) {
  check_writable(arguments.logits);
  const LoadedModel loaded = load(arguments.model, /*takes_choice=*/true);
  if (loaded.choice && !arguments.logits.empty()) {
    throw expected("one program with --logits", "a choice, " + arguments.model.program);
  }
  const TokenView tokens = open_text(arguments.data, arguments.text, *loaded.tokenizer);
  // A text shorter than a window is a window of its own length.
  const int64_t context =
      std::min(arguments.context > 0 ? arguments.context : loaded.model->spec().model.context,
               tokens.size() - 1);
  const EvalWindows windows(tokens, context, arguments.tokens);
  EvaluationOptions options;
  options.program = loaded.program_or_null();
  options.choice = loaded.choice ? &*loaded.choice : nullptr;
  options.rows = arguments.batch;
  options.prompt = arguments.prompt;
  const Evaluation result = evaluate(*loaded.model, windows, *loaded.tokenizer, options);
  if (!result.is_finite()) {
    throw Failure(expectation("a finite loss", std::abs(result.loss),
                              fmt::format("over {} tokens of {}, from {}", result.tokens,
                                          arguments.data, loaded.folder.string())),
                  "the model holds values that are not finite or too large: use an earlier "
                  "checkpoint");
  }
  if (!arguments.logits.empty()) write_logits(loaded, windows, arguments);
  if (arguments.json) {
    nlohmann::ordered_json object = {{"run", arguments.model.run.string()},
                                     {"checkpoint", loaded.folder.string()},
                                     {"scheme", loaded.model->spec().scheme},
                                     {"data", arguments.data},
                                     {"tokens", result.tokens},
                                     {"loss", result.loss},
                                     {"bits_per_byte", result.bits_per_byte}};
    if (result.mean_depth > 0.0) object["mean_depth"] = result.mean_depth;
    print_line(object);
    return 0;
  }
  print(fmt::format("loss {:.4f} nats/token  {:.4f} bits/byte  over {} tokens of {}\n", result.loss,
                    result.bits_per_byte, format_count(static_cast<double>(result.tokens)),
                    arguments.data));
  if (result.mean_depth > 0.0) {
    print(fmt::format("mean depth {:.2f} layers/token\n", result.mean_depth));
  }
  return 0;
}

}  // namespace

void add_eval(CLI::App& root, Action& action) {
  auto* command = root.add_subcommand("eval", "Measure the loss of a model on any text");
  auto arguments = std::make_shared<EvalArguments>();
  add_model_arguments(*command, arguments->model, "fp32");
  command->add_option("--data", arguments->data, kTextHelp)->required();
  add_text_arguments(*command, arguments->text);
  command->add_option("--logits", arguments->logits,
                      "Write ids and logits of the first batch to this safetensors file");
  command->add_option("--tokens", arguments->tokens, "Score at most this many tokens; 0: all")
      ->check(integer_from(0))
      ->capture_default_str();
  command->add_option("--batch", arguments->batch, "Windows per pass")
      ->check(integer_from(1))
      ->capture_default_str();
  command->add_option("--context", arguments->context, "Window length; 0: the model's")
      ->check(integer_from(0))
      ->capture_default_str();
  command
      ->add_option(
          "--prompt", arguments->prompt,
          "Score each window from this token on; earlier ones are read into the cache as a prompt")
      ->check(integer_from(0))
      ->capture_default_str();
  command->add_flag("--json", arguments->json, "Print one JSON object");
  command->footer(
      "Examples:\n"
      "    wavroute eval runs/tiny --data book.txt\n"
      "    wavroute eval runs/tiny --data book.txt --checkpoint best --json\n"
      "    wavroute eval runs/tiny --data corpus --tokens 100000 --layers every-other");
  command->callback([&action, arguments] { action = [arguments] { return eval(*arguments); }; });
}

}  // namespace wavroute::app
