// wavroute data train-tokenizer: a byte-pair encoding of one's own text.
#include "data_train_tokenizer.h"

#include <fmt/format.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/numbers.h"
#include "base/output.h"
#include "common.h"
#include "data/bpe_trainer.h"
#include "data/sources.h"
#include "io/file.h"
#include "io/python.h"
#include "train/process.h"
#include "validators.h"
#include "wavroute/error.h"

namespace wavroute::app {
namespace {

using Clock = std::chrono::steady_clock;

struct TrainTokenizerArguments {
  std::vector<std::string> sources;
  std::string field;
  int64_t vocab_size = 0;
  std::filesystem::path out;
  bool json = false;
};

constexpr auto kPause = std::chrono::seconds(10);  // between two lines that say how far it is

// False where a signal ended the reading.
bool read_sources(const TrainTokenizerArguments& arguments, BpeTrainer& trainer) {
  SourceOptions options;
  if (!arguments.field.empty()) options.field = arguments.field;
  options.output = arguments.out;
  const auto files = list_sources(arguments.sources, options);
  const std::string python = find_python(own_path());
  auto told = Clock::now();
  for (const SourceFile& file : files) {
    SourceReader reader(file, python, StopSignal::requested);
    const auto summary = reader.read([&](const SourceDocument& document, auto) {
      trainer.add(document.text);
      if (Clock::now() - told > kPause) {
        told = Clock::now();
        note(fmt::format("read {}, {} different words",
                         format_bytes(static_cast<double>(trainer.bytes())),
                         format_count(static_cast<double>(trainer.words()))));
      }
      return !StopSignal::requested();
    });
    if (!summary) return false;
  }
  return true;
}

void check_out(const std::filesystem::path& out) {
  std::error_code ignored;
  const bool is_folder = std::filesystem::is_directory(out, ignored);
  if (!is_folder && out.has_filename()) return;
  throw expected("a file to write",
                 is_folder ? out.string() + ", a folder" : "'" + out.string() + "'", "for --out",
                 "give the file's whole path, for instance tokenizer.json");
}

int run_train_tokenizer(const TrainTokenizerArguments& arguments) {
  const StopSignal stop;
  BpeTrainer trainer;
  // Before anything is read.
  BpeTrainer::check(arguments.vocab_size);
  check_out(arguments.out);
  if (!read_sources(arguments, trainer)) {
    note("stopped; nothing was written");
    return 1;
  }
  if (trainer.bytes() == 0) {
    throw expected("text to train a tokenizer on", "none", {}, "name files or folders with text");
  }
  const BpeTrainer::Trained trained = trainer.train(arguments.vocab_size);
  const std::filesystem::path out = followed_link(arguments.out);
  if (out.has_parent_path()) make_folders(out.parent_path());
  write_file_atomic(out, trained.json);
  const std::string path = arguments.out.string();
  if (trained.vocab_size < arguments.vocab_size) {
    note(
        fmt::format("wavroute: the text is too short for {} tokens: no further pair stands in it "
                    "twice",
                    arguments.vocab_size));
  }
  if (arguments.json) {
    const nlohmann::ordered_json line = {{"path", path},
                                         {"vocab_size", trained.vocab_size},
                                         {"bytes", trainer.bytes()},
                                         {"words", trainer.words()}};
    print_line(line);
  } else {
    print(fmt::format("{} tokens from {} of text, {} different words; in {}\n", trained.vocab_size,
                      format_bytes(static_cast<double>(trainer.bytes())),
                      format_count(static_cast<double>(trainer.words())), path));
  }
  note(fmt::format("next: wavroute data prepare SOURCE --out DIR --tokenizer {}", path));
  return 0;
}

}  // namespace

void add_train_tokenizer(CLI::App& data, Action& action) {
  auto* command = data.add_subcommand(
      "train-tokenizer", "Train a byte-level byte-pair encoding on texts: a tokenizer.json");
  auto arguments = std::make_shared<TrainTokenizerArguments>();
  command->add_option("SOURCE", arguments->sources, "As for data prepare")->required();
  command
      ->add_option("--vocab", arguments->vocab_size,
                   "Tokens, 256 bytes and <|endoftext|> among them")
      ->required()
      ->check(integer_from(1));
  command->add_option("-o,--out", arguments->out, "The tokenizer.json to write")->required();
  command->add_option("--field", arguments->field, "As for data prepare");
  command->add_flag("--json", arguments->json, "Print the result as JSON");
  command->footer(
      "Examples:\n"
      "    wavroute data train-tokenizer texts/ --vocab 8192 --out tokenizer.json\n"
      "    wavroute data prepare texts/ --out corpus --tokenizer tokenizer.json");
  command->callback(
      [&action, arguments] { action = [arguments] { return run_train_tokenizer(*arguments); }; });
}

}  // namespace wavroute::app
