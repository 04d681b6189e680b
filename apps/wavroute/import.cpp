// wavroute import: a model of another program becomes a folder that every command takes.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "base/numbers.h"
#include "base/output.h"
#include "command.h"
#include "common.h"
#include "formats/foreign_model.h"
#include "formats/new_folder.h"
#include "io/checkpoint_names.h"
#include "io/file.h"
#include "model/model_folder.h"
#include "model/plain_start.h"
#include "wavroute/error.h"

namespace wavroute::app {
namespace {

namespace fs = std::filesystem;

struct ImportArguments {
  fs::path source, out, tokenizer;
  std::string scheme;
  std::vector<std::string> options;
};

// The largest difference of logits that counts as none, as a part of their spread: the rounding of
// fp32 over a deep model.
constexpr double kKept = 1e-3;

double parameters_of(const ForeignModel& model) {
  double count = 0;
  for (const ForeignTensor& tensor : model.tensors) {
    double numbers = 1;
    for (const int64_t size : tensor.shape) numbers *= static_cast<double>(size);
    count += numbers;
  }
  return count;
}

std::string kept_words(const std::string& scheme, const at::Tensor& before,
                       const at::Tensor& after) {
  const double spread = (before.max() - before.min()).item<double>();
  const double difference = (after - before).abs().max().item<double>();
  const bool is_kept = difference <= kKept * spread;
  return fmt::format(
      "{}: the function is {}: logits differ by at most {:.2g}, {:.2g} of their spread\n", scheme,
      is_kept ? "kept" : "not kept", difference, difference / spread);
}

// The probe compares logits by their spread.
void check_probe(const at::Tensor& logits, const fs::path& source) {
  const bool is_finite = at::isfinite(logits).all().item<bool>();
  if (is_finite && (logits.max() - logits.min()).item<double>() > 0) return;
  throw expected(
      "logits that are finite and differ", is_finite ? "equal ones" : "others",
      fmt::format("from the model of {}", source.string()),
      "its weights are damaged, or were never trained: without --to it is imported as it is");
}

// Fills `routed`; its logits of the probe. A larger stream makes the eps of the norms weigh less
// where a scheme averages many sources and more where it reads few: whatever changes the logits
// least.
at::Tensor best_start(Decoder& routed, const fs::path& plain, const at::Tensor& before,
                      const std::vector<at::Tensor>& norms) {
  struct Start {
    double scale;
    std::vector<double> factors;  // of the norms
    at::Tensor logits;
  };
  const double largest = routed.residual().start_from_plain().stream_scale;
  const bool averages = largest != 1.0;
  Start best, last;
  double least = std::numeric_limits<double>::infinity();
  for (const double scale : std::set{1.0, std::min(2.0, largest), largest}) {
    start_from_plain(routed, plain, scale);
    last = {scale, {}, {}};
    if (averages && routed.residual().has_sublayer_norms()) {
      last.factors = norm_factors(routed, norms);
      scale_norms(routed, last.factors);
    }
    last.logits = probe_logits(routed);
    const double change = (last.logits - before).abs().max().item<double>();
    if (best.logits.defined() && !(change < least)) continue;
    if (change < least) least = change;
    best = last;
  }
  if (best.scale != last.scale) {
    start_from_plain(routed, plain, best.scale);
    scale_norms(routed, best.factors);
  }
  return best.logits;
}

// The model of `folder` under another scheme, in `made`; how far its function is kept, in words.
std::string convert(const ImportArguments& arguments, const ForeignModel& model,
                    const fs::path& plain_folder, const fs::path& made, const std::string& name) {
  Options options;
  change_options(arguments.scheme, options, arguments.options);
  const DecoderSpec plain = read_model_config(plain_folder);
  const DecoderSpec spec = spec_from_plain(plain, arguments.scheme, options);
  at::Tensor before;
  std::vector<at::Tensor> norms;
  {  // gone before the other model is made
    const auto source = load_model(plain_folder, Precision::kFp32, at::kCPU);
    before = probe_logits(*source);
    check_probe(before, arguments.source);
    norms = probe_norms(*source);
  }
  Decoder routed(spec, Precision::kFp32, at::kCPU, /*seed=*/1);
  const at::Tensor after = best_start(routed, plain_folder, before, norms);
  save_parameters(routed, made / kModelFile);
  write_file_atomic(made / kConfigFile,
                    with_end_tokens(model_config(routed, {}), model).dump(2) + "\n");
  ForeignModel described = model;
  described.tensors.clear();
  described.model.tie_embeddings = spec.model.tie_embeddings;
  write_companions(described, made,
                   {.configuration = name, .scheme = arguments.scheme, .options = options});
  return kept_words(arguments.scheme, before, after);
}

int import(const ImportArguments& arguments) {
  if (arguments.scheme.empty() && !arguments.options.empty()) {
    throw expected("--to SCHEME with --residual", "none", {},
                   "--residual sets an option of the scheme that the model gets");
  }
  if (!arguments.scheme.empty()) static_cast<void>(find_scheme(arguments.scheme));
  NewFolder made(arguments.out);
  const ForeignModel model = open_foreign_model(arguments.source, arguments.tokenizer);
  if (!model.ignored.empty()) {
    const bool is_folder = fs::is_directory(arguments.source);
    const fs::path where = is_folder ? arguments.source / kConfigFile : arguments.source;
    note(fmt::format("wavroute: not known, ignored: {}, in {}", fmt::join(model.ignored, ", "),
                     where.string()));
  }
  if (model.tokenizer.json.empty()) {
    note(fmt::format("wavroute: {} has no tokenizer that can be read: --tokenizer PATH adds one",
                     arguments.source.string()));
  }
  std::string kept;
  if (arguments.scheme.empty()) {
    write_model_folder(model, made.at(),
                       {.configuration = made.name(), .scheme = DecoderSpec().scheme});
  } else {
    const fs::path plain = made.at() / "plain";
    make_folders(plain);
    write_model_folder(model, plain, {});
    kept = convert(arguments, model, plain, made.at(), made.name());
    remove_tree(plain);
  }
  made.commit();
  const ModelConfig& m = model.model;
  print(fmt::format("{}: {} layers, width {}, {} heads, {} tokens, {} parameters ({})\n",
                    arguments.out.string(), m.layers, m.width, m.heads, model.vocab_size,
                    format_magnitude(parameters_of(model)), model.format));
  print(kept);
  print(fmt::format("next: wavroute generate {} --prompt \"...\"\n      wavroute train {}\n",
                    arguments.out.string(), (arguments.out / "config.toml").string()));
  return 0;
}

}  // namespace

void add_import(CLI::App& root, Action& action) {
  auto* command = root.add_subcommand("import", "Make a model folder of another program's model");
  auto arguments = std::make_shared<ImportArguments>();
  command
      ->add_option("SOURCE", arguments->source,
                   "A Hugging Face Llama folder, a .gguf file, or a llama2.c .bin")
      ->required();
  command->add_option("-o,--out", arguments->out, "The folder to make; it must not be there yet")
      ->required();
  command->add_option("--tokenizer", arguments->tokenizer,
                      "Take the tokenizer of a tokenizer.json, a .gguf or llama2.c's tokenizer.bin "
                      "instead of SOURCE's");
  command->add_option("--to", arguments->scheme,
                      "Start a model of this residual scheme from the weights, without changing "
                      "the function where the scheme allows it");
  command
      ->add_option("--residual", arguments->options,
                   "KEY=VALUE: an option of that scheme; repeatable")
      ->allow_extra_args(false);
  command->footer(
      "Examples:\n"
      "    wavroute import SmolLM-135M --out smol\n"
      "    wavroute import model.gguf --out model\n"
      "    wavroute import stories15M.bin --tokenizer tokenizer.bin --out stories\n"
      "    wavroute import SmolLM-135M --out smol-wav --to wav --residual beta=-16");
  command->callback([&action, arguments] { action = [arguments] { return import(*arguments); }; });
}

}  // namespace wavroute::app
