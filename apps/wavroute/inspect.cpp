// wavroute inspect: what routers learnt, and which layers a model needs.
#include "inspect/inspection.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "base/output.h"
#include "command.h"
#include "common.h"
#include "config/load.h"
#include "inspect/router_starts.h"
#include "io/checkpoint_names.h"
#include "io/file.h"
#include "io/run_folder.h"
#include "report/inspection_table.h"
#include "report/verdicts.h"
#include "text_arguments.h"
#include "train/checkpointing.h"
#include "train/schedule.h"
#include "validators.h"
#include "wavroute/error.h"

namespace wavroute::app {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kUsualContext = 512;  // a pass keeps what every sublayer read and wrote

struct InspectArguments {
  ModelArguments model;
  std::vector<std::string> data;
  TextArguments text;
  fs::path out;
  int64_t tokens = 2048;
  int64_t context = 0;
  bool ablate = false;
  bool json = false;
};

// What is known of the training that made a checkpoint.
struct Training {
  std::optional<int64_t> seed;  // that drew the weights
  double reach = 0.0;           // of a random walk over its schedule
};

// Nothing for a folder that is no checkpoint of a run, and for one that began with other weights
// than those of its seed.
std::optional<Training> training_of(const fs::path& checkpoint) {
  const fs::path config_file = RunPaths{checkpoint.parent_path().parent_path()}.config();
  if (!is_there(checkpoint / kStateFile) || !is_there(config_file)) return std::nullopt;
  const Config config = parse_config(read_config_text(config_file), config_file.string(),
                                     scheme_catalog(), ConfigUse::kTrain);
  const Progress progress = progress_of(checkpoint);
  if (!config.train.init.empty() || progress.step == 0) return std::nullopt;
  return Training{config.train.seed,
                  random_walk_reach(config.optimizer.lr, config.schedule, progress.step,
                                    {progress.steps, config.train.steps})};
}

std::vector<EvalWindows> open_texts(const InspectArguments& arguments, const LoadedModel& loaded) {
  const int64_t usual = std::min(loaded.model->spec().model.context, kUsualContext);
  std::vector<EvalWindows> texts;
  for (const std::string& data : arguments.data) {
    const TokenView tokens = open_text(data, arguments.text, *loaded.tokenizer);
    const int64_t wanted = arguments.context > 0 ? arguments.context : usual;
    texts.emplace_back(tokens, std::min(wanted, tokens.size() - 1), arguments.tokens);
  }
  return texts;
}

TokenGroups groups_of(const std::vector<EvalWindows>& texts, const LoadedModel& loaded) {
  std::vector<int64_t> counts(static_cast<size_t>(loaded.model->spec().vocab_size));
  int64_t context = 1;
  for (const EvalWindows& windows : texts) {
    count_ids(windows, counts);
    context = std::max(context, windows.context());
  }
  return {*loaded.tokenizer, counts, context};
}

void require_finite(const nlohmann::ordered_json& part, const std::string& data,
                    const LoadedModel& loaded) {
  const double loss = part.at("loss");
  if (std::isfinite(loss)) return;
  throw Failure(expectation("a finite loss", std::abs(loss),
                            fmt::format("over {}, from {}", data, loaded.folder.string())),
                "the model holds values that are not finite or too large: use an earlier "
                "checkpoint");
}

nlohmann::ordered_json inspect_all(const InspectArguments& arguments, const LoadedModel& loaded) {
  const std::vector<EvalWindows> texts = open_texts(arguments, loaded);
  const TokenGroups groups = groups_of(texts, loaded);
  const InspectionOptions options{loaded.program_or_null(), {}};
  Decoder& model = *loaded.model;

  nlohmann::ordered_json document = {
      {"run", arguments.model.run.string()}, {"checkpoint", loaded.folder.string()},
      {"scheme", model.spec().scheme},       {"layers", model.spec().model.layers},
      {"width", model.spec().model.width},   {"data", arguments.data}};
  nlohmann::ordered_json parts = nlohmann::ordered_json::array();
  std::optional<Inspection> all;
  for (size_t i = 0; i < texts.size(); ++i) {
    const Inspection of_text = inspect(model, texts[i], groups, options);
    nlohmann::ordered_json part = {{"data", arguments.data[i]}};
    part.update(to_json(of_text));
    require_finite(part, arguments.data[i], loaded);
    if (texts.size() == 1) {  // the document says the rest
      part = {{"data", part["data"]}, {"scored", part["scored"]}, {"loss", part["loss"]}};
    }
    parts.push_back(std::move(part));
    if (all) {
      all->add(of_text);
    } else {
      all = of_text;
    }
  }
  document.update(to_json(*all));
  document["texts"] = std::move(parts);

  const std::optional<Training> training = training_of(loaded.folder);
  const std::vector<SchemeTensor> tensors =
      scheme_tensors(model, training ? training->seed : std::nullopt);
  if (training && training->reach > 0.0) {
    document["random_walk_reach"] = training->reach;
    document["coefficients"] = moves_json(tensors, training->reach);
  }
  if (arguments.ablate) document["ablation"] = ablate(model, tensors, texts, options);
  document["verdicts"] = verdicts_of(document);
  return document;
}

int inspect(const InspectArguments& arguments) {
  check_writable(arguments.out);
  const fs::path out = arguments.out.empty() ? fs::path() : followed_link(arguments.out);
  const LoadedModel loaded = load(arguments.model);
  const nlohmann::ordered_json document = inspect_all(arguments, loaded);
  if (!out.empty()) write_file_atomic(out, inspection_page(document));
  if (arguments.json) {
    print_line(document);
    return 0;
  }
  print(inspection_text(document));
  if (!out.empty()) print(fmt::format("\n{}\n", out.string()));
  return 0;
}

}  // namespace

void add_inspect(CLI::App& root, Action& action) {
  auto* command = root.add_subcommand(
      "inspect", "Show what routers, gates and layers of a model do on any text");
  auto arguments = std::make_shared<InspectArguments>();
  add_model_arguments(*command, arguments->model, "fp32");
  command
      ->add_option("--data", arguments->data,
                   std::string(kTextHelp) + ". Given twice, the texts stand side by side")
      ->required()
      ->allow_extra_args(false);
  add_text_arguments(*command, arguments->text);
  command->add_option("--tokens", arguments->tokens, "Of each text at most so many; 0: all")
      ->check(integer_from(0))
      ->capture_default_str();
  command
      ->add_option("--context", arguments->context,
                   fmt::format("Window length; 0: the model's, at most {}", kUsualContext))
      ->check(integer_from(0))
      ->capture_default_str();
  command->add_flag("--ablate", arguments->ablate,
                    "Also measure the loss with the coefficients of one sublayer at a time put "
                    "back to their start");
  command->add_option("-o,--out", arguments->out,
                      "Write a page of heat maps and curves, self-contained HTML");
  command->add_flag("--json", arguments->json, "Print one JSON object");
  command->footer(
      "Examples:\n"
      "    wavroute inspect runs/tiny --data book.txt --out tiny.html\n"
      "    wavroute inspect runs/tiny --data prose.txt --data code.py --ablate\n"
      "    wavroute inspect model --data book.txt --json | jq .verdicts");
  command->callback([&action, arguments] { action = [arguments] { return inspect(*arguments); }; });
}

}  // namespace wavroute::app
