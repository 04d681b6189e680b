// wavroute export: a model of ours for transformers, llama.cpp or llama2.c.
#include <fmt/format.h>

#include "base/numbers.h"
#include "base/output.h"
#include "command.h"
#include "common.h"
#include "formats/export_model.h"
#include "formats/modelling.h"
#include "formats/new_folder.h"
#include "io/file.h"
#include "io/run_folder.h"
#include "model/model_folder.h"
#include "residual/fold.h"
#include "wavroute/error.h"

namespace wavroute::app {
namespace {

namespace fs = std::filesystem;

struct ExportArguments {
  fs::path run, out;
  std::string checkpoint, format, type = "f32";
};

Dtype folder_type(const std::string& type) {
  if (type == "f16") return Dtype::kF16;
  if (type == "bf16") return Dtype::kBF16;
  if (type == "f32") return Dtype::kF32;
  throw expected("--type f32, f16 or bf16 of --format hf", type, {},
                 "--format gguf takes q8_0 as well");
}

GgmlType gguf_type(const std::string& type) {
  if (type == "f16") return GgmlType::kF16;
  if (type == "bf16") return GgmlType::kBF16;
  return type == "q8_0" ? GgmlType::kQ8_0 : GgmlType::kF32;
}

// What each update is multiplied by, where that makes the scheme a Llama.
std::optional<std::vector<OutputScale>> scales_of(const DecoderSpec& spec) {
  const auto residual =
      find_scheme(spec.scheme)
          .create(spec.options, {spec.model.layers, spec.model.width}, spec.model.rms_norm_eps);
  ParameterTable table;  // of names alone
  residual->declare(table);
  const auto scales = update_scales(*residual, spec.model.layers);
  if (!scales) return std::nullopt;
  std::vector<OutputScale> result;
  for (const UpdateScale& scale : *scales) result.push_back({scale.tensor, scale.row});
  return result;
}

void check_out(const fs::path& out) {
  std::error_code ignored;
  if (!fs::exists(fs::symlink_status(out, ignored))) return;
  throw expected("a file that isn't there yet", out.string(), "for --out",
                 "give another --out, or remove it");
}

void write(const ExportArguments& arguments, const fs::path& folder, const DecoderSpec& spec) {
  const auto scales = scales_of(spec);
  if (!scales && arguments.format != "hf") {
    throw expected(
        fmt::format("a scheme that is a Llama for --format {}", arguments.format), spec.scheme,
        fmt::format("in {}", folder.string()),
        "prenorm, layerdrop, layerscale, block_layerscale and rezero with norms are; --format hf "
        "writes every scheme with the Python files that transformers needs for it");
  }
  if (!scales) {
    write_modelling_folder(folder, arguments.out, folder_type(arguments.type));
    return;
  }
  const ForeignModel model = open_as_llama(folder, spec.model, spec.vocab_size, *scales);
  if (arguments.format == "hf") {
    NewFolder made(arguments.out);
    write_model_folder(model, made.at(), {.type = folder_type(arguments.type)});
    made.commit();
    return;
  }
  check_out(arguments.out);
  if (arguments.format == "gguf") {
    write_gguf_model(model, arguments.out.stem().string(), gguf_type(arguments.type),
                     arguments.out);
    return;
  }
  if (arguments.type != "f32") {
    throw expected("--type f32 of --format llama2c", arguments.type, {},
                   "version 0 of its checkpoints holds fp32 alone");
  }
  constexpr double kItsEps = 1e-5;
  if (spec.model.rms_norm_eps != kItsEps) {
    note(
        fmt::format("wavroute: llama2.c computes with rms_norm_eps 1e-05, this model with {}: "
                    "its logits differ a little",
                    spec.model.rms_norm_eps));
  }
  write_llama2c_model(model, arguments.out);
}

int run(const ExportArguments& arguments) {
  std::string made_of;
  read_run_folder(arguments.run, arguments.checkpoint, note_skipped, [&](const fs::path& folder) {
    const DecoderSpec spec = read_model_config(folder);
    check_weights(spec, folder);
    write(arguments, folder, spec);
    made_of = fmt::format("{} of {}", spec.scheme, folder.string());
  });
  print(fmt::format("{}: {} in {}\n", arguments.out.string(), made_of, arguments.type));
  return 0;
}

}  // namespace

void add_export(CLI::App& root, Action& action) {
  auto* command =
      root.add_subcommand("export", "Write a model for transformers, llama.cpp, llama2.c");
  auto arguments = std::make_shared<ExportArguments>();
  command
      ->add_option("RUN", arguments->run,
                   "A run folder, a checkpoint folder, or a Hugging Face Llama folder")
      ->required();
  command->add_option("--checkpoint", arguments->checkpoint,
                      "Of a run folder: 'best' or a step (default: the newest)");
  command
      ->add_option("--format", arguments->format,
                   "hf (a folder for transformers), gguf (llama.cpp), llama2c (its version 0)")
      ->check(CLI::IsMember({"hf", "gguf", "llama2c"}))
      ->required();
  command->add_option("--type", arguments->type, "Of the numbers: f32, f16, bf16, q8_0 (gguf)")
      ->check(CLI::IsMember({"f32", "f16", "bf16", "q8_0"}))
      ->capture_default_str();
  command->add_option("-o,--out", arguments->out, "What to write; it must not be there yet")
      ->required();
  command->footer(
      "Examples:\n"
      "    wavroute export runs/tiny --format hf --out tiny-hf\n"
      "    wavroute export model --format gguf --type q8_0 --out model.gguf\n"
      "    wavroute export runs/plain --checkpoint best --format llama2c --out plain.bin");
  command->callback([&action, arguments] { action = [arguments] { return run(*arguments); }; });
}

}  // namespace wavroute::app
