// wavroute data: texts made ready for training, and what a file holds.
#include <fmt/format.h>

#include <cstdlib>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/machine.h"
#include "base/numbers.h"
#include "base/output.h"
#include "base/threads.h"
#include "command.h"
#include "common.h"
#include "data/file_info.h"
#include "data/prepare.h"
#include "data/recipes.h"
#include "data_train_tokenizer.h"
#include "io/python.h"
#include "prepare_console.h"
#include "train/process.h"
#include "validators.h"
#include "wavroute/error.h"

namespace wavroute::app {
namespace {

struct PrepareArguments {
  PrepareOptions options;
  std::string tokenizer, field, separator, resume;
  bool has_separator = false;
  int threads = 0;
  bool json = false;
};

// "\n", "\t", "\r", "\0" and "\\" as they are written on a command line.
std::string unescaped(const std::string& text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\') {
      plain += text[i];
      continue;
    }
    const char sign = i + 1 < text.size() ? text[++i] : '\0';
    switch (sign) {
      case 'n':
        plain += '\n';
        break;
      case 't':
        plain += '\t';
        break;
      case 'r':
        plain += '\r';
        break;
      case '0':
        plain += '\0';
        break;
      case '\\':
        plain += '\\';
        break;
      default:
        throw expected("\\n, \\t, \\r, \\0 or \\\\ behind a backslash", fmt::format("'{}'", text),
                       "as --separator", "write a backslash twice: \\\\");
    }
  }
  return plain;
}

std::string count(int64_t number) { return format_count(static_cast<double>(number)); }

std::string summary_of(const Manifest& manifest, const std::string& folder) {
  std::string text;
  for (size_t i = 0; i < kSplits; ++i) {
    const auto split = static_cast<SplitName>(i);
    const TextCounts counts = manifest.total(split);
    if (counts.documents == 0) continue;
    text += fmt::format("{:<6} {} documents, {} bytes, {} tokens\n", to_string(split),
                        count(counts.documents), count(counts.bytes), count(counts.tokens));
  }
  if (manifest.duplicates > 0) {
    text += fmt::format("{} duplicates {}\n", count(manifest.duplicates),
                        manifest.settings.dedup ? "left out" : "kept (--dedup leaves them out)");
  }
  if (manifest.empty > 0)
    text += fmt::format("{} empty documents left out\n", count(manifest.empty));
  if (manifest.invalid_bytes > 0) {
    text += fmt::format("{} bytes are no UTF-8\n", count(manifest.invalid_bytes));
  }
  text += fmt::format("tokenizer {}, {} tokens; in {}\n", manifest.tokenizer.name,
                      count(manifest.tokenizer.vocab_size), folder);
  return text;
}

int run_prepare(const PrepareArguments& arguments) {
  PrepareOptions options = arguments.options;
  if (!arguments.tokenizer.empty()) options.tokenizer = arguments.tokenizer;
  if (!arguments.field.empty()) options.field = arguments.field;
  if (arguments.has_separator) options.separator = unescaped(arguments.separator);
  if (!arguments.resume.empty() && arguments.resume != "auto") {
    throw expected("--resume auto", fmt::format("'{}'", arguments.resume), {},
                   "it goes on where the last such command was ended, or begins");
  }
  options.resume = !arguments.resume.empty();
  options.threads = threads_to_use(arguments.threads, probe_machine());
  options.python = find_python(own_path());
  const StopSignal stop;
  options.is_stopped = StopSignal::requested;
  PrepareConsole console;
  const auto manifest = prepare(options, [&](const PrepareProgress& progress) {
    console.show(progress);
    return !StopSignal::requested();
  });
  console.clear();
  if (!manifest) {
    note("stopped; to continue: the same command with --resume auto");
    return 1;
  }
  const std::string folder = options.out.string();
  if (options.valid > 0 && manifest->total(SplitName::kValid).documents == 0) {
    note(
        fmt::format("wavroute: no document fell to validation, of {}: set data.valid to another "
                    "text, or cut the text into documents with --separator",
                    count(manifest->total().documents)));
  }
  constexpr auto kReplace = nlohmann::ordered_json::error_handler_t::replace;
  print(arguments.json ? to_json(*manifest).dump(2, ' ', false, kReplace) + "\n"
                       : summary_of(*manifest, folder));
  note(fmt::format("next: wavroute train CONFIG --set data.train={}", folder));
  return 0;
}

std::string recipe_names() {
  std::string names;
  for (const Recipe& recipe : recipes()) {
    names += (names.empty() ? "" : ", ") + std::string(recipe.name);
  }
  return names;
}

// A number from 0 to below 1, in our words.
CLI::Validator share() {
  return CLI::Validator(
      [](const std::string& text) {
        char* end = nullptr;
        const double value = std::strtod(text.c_str(), &end);
        if (!text.empty() && *end == '\0' && value >= 0.0 && value < 1.0) return std::string();
        return fmt::format("expected a share from 0 to below 1, given '{}'", text);
      },
      /*description=*/"");
}

void add_prepare(CLI::App& data, Action& action) {
  auto* command = data.add_subcommand(
      "prepare", "Cut texts into documents, shuffle and tokenise them into a folder to train on");
  auto arguments = std::make_shared<PrepareArguments>();
  PrepareOptions& options = arguments->options;
  command
      ->add_option(
          "SOURCE", options.sources,
          "Text, JSON lines (.jsonl) or Parquet (.parquet), packed by gzip or zstd or not; "
          "a folder stands for the files below it, '-' for standard input")
      ->required();
  command->add_option("-o,--out", options.out, "The folder to make")->required();
  command->add_option("--recipe", options.recipe, "A known corpus: " + recipe_names());
  command->add_option(
      "--tokenizer", arguments->tokenizer,
      "bytes (default), chars, or the path of a tokenizer.json, of a .gguf, or of a "
      "folder with encoder.json and vocab.bpe");
  command->add_option("--field", arguments->field,
                      "The field (JSON lines) or column (Parquet) with the text (default: text); "
                      "standard input is then JSON lines");
  auto* separator = command->add_option(
      "--separator", arguments->separator,
      "What stands between the documents of a text (default: <|endoftext|>); \\n is a line end; "
      "empty: a file is a document");
  command
      ->add_option("--valid", options.valid,
                   "Share of the documents for validation, chosen by a hash of their content")
      ->check(share())
      ->capture_default_str();
  command->add_option("--seed", options.seed, "Of the order of the documents")
      ->check(integer_from(0))
      ->capture_default_str();
  command->add_flag("--dedup", options.dedup, "Leave out documents that equal an earlier one");
  command->add_option("--resume", arguments->resume,
                      "'auto': go on where the same command was ended, or begin");
  command->add_option("--threads", arguments->threads, "0: OMP_NUM_THREADS, or all cores")
      ->check(integer_from(0, std::numeric_limits<int>::max()))
      ->capture_default_str();
  command->add_flag("--json", arguments->json, "Print the manifest as JSON");
  command->footer(
      "Examples:\n"
      "    wavroute data prepare texts/ more.jsonl.gz --out corpus --tokenizer tokenizer.json\n"
      "    wavroute data prepare TinyStories/ --recipe tinystories --tokenizer chars -o stories\n"
      "    zcat dump.gz | wavroute data prepare - --out corpus --separator '\\n' --dedup\n"
      "    wavroute train my.toml --set data.train=corpus");
  command->callback([&action, arguments, separator] {
    arguments->has_separator = separator->count() > 0;
    action = [arguments] { return run_prepare(*arguments); };
  });
}

struct InfoArguments {
  std::string path;
  FileInfoOptions options;
  std::string field, separator;
  bool json = false;
};

int run_info(const InfoArguments& arguments) {
  FileInfoOptions options = arguments.options;
  if (!arguments.field.empty()) options.sources.field = arguments.field;
  if (!arguments.separator.empty()) options.sources.separator = unescaped(arguments.separator);
  options.python = find_python(own_path());
  const nlohmann::ordered_json info = file_info(arguments.path, options);
  constexpr auto kReplace = nlohmann::ordered_json::error_handler_t::replace;
  print(arguments.json ? info.dump(2, ' ', false, kReplace) + "\n" : file_info_text(info));
  return 0;
}

void add_info(CLI::App& data, Action& action) {
  auto* command = data.add_subcommand("info", "Describe a text, a token file or a prepared folder");
  auto arguments = std::make_shared<InfoArguments>();
  command
      ->add_option("PATH", arguments->path,
                   "A folder that `data prepare` made, a token file (ours or llm.c's), or a text")
      ->required();
  command->add_option("--tokenizer", arguments->options.tokenizer,
                      "Shows the first tokens as text: bytes, or a path as for data prepare "
                      "(default: the one beside the file)");
  command->add_option("--field", arguments->field, "As for data prepare");
  command->add_option("--separator", arguments->separator, "As for data prepare");
  command->add_flag("--json", arguments->json, "Print one JSON object");
  command->footer(
      "Examples:\n"
      "    wavroute data info corpus\n"
      "    wavroute data info corpus/train_0000.bin --json");
  command->callback(
      [&action, arguments] { action = [arguments] { return run_info(*arguments); }; });
}

}  // namespace

void add_data(CLI::App& root, Action& action) {
  auto* data = root.add_subcommand("data", "Prepare texts for training; describe data files");
  data->require_subcommand(1);
  add_prepare(*data, action);
  add_info(*data, action);
  add_train_tokenizer(*data, action);
}

}  // namespace wavroute::app
