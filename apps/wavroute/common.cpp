#include "common.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "base/machine.h"
#include "base/output.h"
#include "io/file.h"
#include "io/run_folder.h"
#include "model/model_folder.h"
#include "residual/options_json.h"
#include "train/forecast.h"
#include "train/session.h"
#include "validators.h"
#include "wavroute/error.h"

namespace wavroute::app {
namespace {

namespace fs = std::filesystem;

// --tokenizer bytes where the folder has a tokenizer of its own: the ids of one mean something else
// to a model trained with the other.
void check_same_tokenizer(const fs::path& file, const Tokenizer& wanted) {
  std::shared_ptr<const Tokenizer> own;
  std::string why = "is of another kind";
  try {
    own = load_tokenizer(file);
    why = fmt::format("is '{}' of {} tokens", own->name(), own->vocab_size());
  } catch (const UserError&) {  // a tokenizer that we can't read is not the bytes tokenizer
  }
  if (own != nullptr && own->hash() == wanted.hash()) return;
  throw expected("the tokenizer of the model", fmt::format("--tokenizer {}", wanted.name()),
                 fmt::format("where {} {}", file.string(), why),
                 "leave --tokenizer out, or remove tokenizer.json if it is not the model's");
}

std::shared_ptr<const Tokenizer> find_tokenizer(const fs::path& folder, const std::string& wanted) {
  const fs::path file = folder / "tokenizer.json";
  std::error_code error;
  const bool has_own = fs::exists(fs::symlink_status(file, error));
  if (wanted == "bytes") {
    auto bytes = make_bytes_tokenizer();
    if (has_own) check_same_tokenizer(file, *bytes);
    return bytes;
  }
  if (!wanted.empty()) {
    throw expected("--tokenizer bytes", fmt::format("'{}'", wanted), {},
                   "other tokenizers come with the checkpoint");
  }
  if (!has_own) {
    throw expected("a tokenizer.json", "none", "in " + folder.string(),
                   "--tokenizer bytes reads text as bytes");
  }
  return load_tokenizer(file);
}

void check_vocabulary(const LoadedModel& loaded) {
  const int64_t tokens = loaded.tokenizer->vocab_size();
  const int64_t rows = loaded.model->spec().vocab_size;
  if (tokens == rows) return;
  throw expected(fmt::format("a vocabulary of {} tokens", rows),
                 fmt::format("{} of the tokenizer '{}'", tokens, loaded.tokenizer->name()),
                 "for the model in " + loaded.folder.string(),
                 "use the tokenizer that the model was trained with");
}

constexpr std::string_view kChoice = "auto:";  // then a file of `wavroute program train`

bool is_choice(const ModelArguments& arguments) { return arguments.program.starts_with(kChoice); }

std::optional<ProgramChoice> read_choice(const ModelArguments& arguments,
                                         const LoadedModel& loaded) {
  if (!is_choice(arguments)) return std::nullopt;
  ProgramChoice choice = ProgramChoice::read(arguments.program.substr(kChoice.size()),
                                             *loaded.model, loaded.tokenizer->hash());
  for (const LayerProgram& program : choice.programs()) loaded.model->check_program(program);
  return choice;
}

std::optional<LayerProgram> parse_program(const ModelArguments& arguments, const Decoder& model) {
  if (!arguments.program.empty() && !arguments.layers.empty()) {
    throw expected("--program or --layers", "both", {},
                   "--layers every-other is short for a program");
  }
  const std::string text = arguments.program.empty() ? arguments.layers : arguments.program;
  if (text.empty() || is_choice(arguments)) return std::nullopt;
  LayerProgram program = LayerProgram::parse(text, model.spec().model.layers);
  model.check_program(program);
  return program;
}

}  // namespace

void change_options(const std::string& scheme, Options& options,
                    const std::vector<std::string>& changes) {
  for (const std::string& change : changes) {
    const size_t equals = change.find('=');
    if (equals == std::string::npos || change.starts_with("scheme=")) {
      throw expected("--residual KEY=VALUE of an option of the scheme",
                     fmt::format("'{}'", change));
    }
    const std::string key = change.substr(0, equals), text = change.substr(equals + 1);
    const nlohmann::json value = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
    const nlohmann::json object = {{"scheme", scheme},
                                   {key, value.is_discarded() ? nlohmann::json(text) : value}};
    options[key] = residual_from_json(object, "--residual").second.at(key);
  }
}

void add_model_arguments(CLI::App& command, ModelArguments& arguments, const std::string& precision,
                         bool takes_q8) {
  arguments.precision = precision;
  std::vector<std::string> precisions = {"auto", "fp32", "bf16"};
  if (takes_q8) precisions.emplace_back("q8_0");
  command
      .add_option("RUN", arguments.run,
                  "A run folder, a checkpoint folder, or a Hugging Face Llama folder")
      ->required();
  command.add_option("--checkpoint", arguments.checkpoint,
                     "Of a run folder: 'best' or a step (default: the newest)");
  command
      .add_option(
          "--precision", arguments.precision,
          fmt::format("One of {}{}", fmt::join(precisions, ", "),
                      takes_q8 ? " (products in ggml's blocks of 8 bits, the rest fp32)" : ""))
      ->check(CLI::IsMember(precisions))
      ->capture_default_str();
  command.add_option("--device", arguments.device, "One of auto, cpu, cuda")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  command.add_option("--threads", arguments.threads, "0: OMP_NUM_THREADS, or all cores")
      ->check(integer_from(0, std::numeric_limits<int>::max()))
      ->capture_default_str();
  command.add_option("--program", arguments.program,
                     "Layers to run, in order: 0-11,12x3,14-23; @FILE: a JSON list of them; "
                     "auto:FILE: as a predictor of 'program train' chooses (default: all, once)");
  command.add_option("--layers", arguments.layers, "Layers to keep: 'every-other', or a list");
  command.add_option("--tokenizer", arguments.tokenizer,
                     "'bytes', for a folder without one of our tokenizers");
  command
      .add_option("--residual", arguments.options,
                  "KEY=VALUE: changes an option of the residual scheme; repeatable")
      ->allow_extra_args(false);
}

LoadedModel load(const ModelArguments& arguments, bool takes_choice) {
  if (is_choice(arguments) && !takes_choice) {
    throw expected("one program", "a choice, " + arguments.program, {},
                   "--program @FILE takes one from a file");
  }
  Config config;
  const bool in_blocks = arguments.precision == "q8_0";
  config.train.precision =
      in_blocks ? Precision::kFp32 : find_choice<Precision>(arguments.precision);  // none: auto
  config.train.device = find_choice<DeviceKind>(arguments.device);
  config.train.threads = arguments.threads;
  config = resolve_machine(config, probe_machine());

  LoadedModel loaded;
  std::vector<std::string> ignored;
  read_run_folder(arguments.run, arguments.checkpoint, note_skipped, [&](const fs::path& folder) {
    loaded.folder = folder;
    ignored.clear();
    DecoderSpec spec = read_model_config(folder, &ignored);
    change_options(spec.scheme, spec.options, arguments.options);
    check_weights(spec, folder);
    loaded.model =
        std::make_unique<Decoder>(std::move(spec), *config.train.precision, device_of(config));
    load_parameters(*loaded.model, folder);
    if (in_blocks) loaded.model->quantise();
    loaded.tokenizer = find_tokenizer(folder, arguments.tokenizer);
  });
  if (!ignored.empty()) {
    note(fmt::format("wavroute: not known, ignored: {}, in {}", fmt::join(ignored, ", "),
                     (loaded.folder / "config.json").string()));
  }
  check_vocabulary(loaded);
  loaded.program = parse_program(arguments, *loaded.model);
  loaded.choice = read_choice(arguments, loaded);
  loaded.free_memory = usable_memory(config, probe_machine());
  return loaded;
}

void check_writable(const fs::path& path) {
  if (!path.empty()) const AtomicFile there(followed_link(path));
}

void print_line(const nlohmann::ordered_json& document) {
  print(document.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

std::string left_half_written(const std::vector<std::filesystem::path>& left) {
  if (left.empty()) return {};
  return fmt::format(
      "left {}: it is half-written by another host or container, or from before a restart, or "
      "can't be removed ({} in all); remove it if nobody writes it any more",
      left.front().string(), left.size());
}

void note_skipped(const Checkpoint& checkpoint, const std::string& reason) {
  note(fmt::format("wavroute: passed over {}: {}", checkpoint.path.string(), reason));
}

std::string own_path() { return fs::read_symlink("/proc/self/exe").string(); }

}  // namespace wavroute::app
