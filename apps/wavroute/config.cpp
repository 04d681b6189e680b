// wavroute config: the resolved configuration, and the shipped ones.
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/output.h"
#include "command.h"
#include "compare/grid.h"
#include "config/document.h"
#include "config/literal.h"
#include "config/load.h"
#include "config/names.h"
#include "config/presets.h"
#include "config/print.h"
#include "train/forecast.h"
#include "wavroute/decoder.h"
#include "wavroute/error.h"
#include "wavroute/residual.h"

namespace wavroute::app {
namespace {

struct ConfigArguments {
  std::string config;
  std::vector<std::string> sets;
  bool json = false;
};

// {"config": {section: {key: value}}, "origins": {"section.key": origin}}
// Of a TOML literal.
nlohmann::ordered_json value_as_json(const std::string& text) {
  const Node node = text.starts_with('{') ? parse_value(text) : Node{false};
  if (node.table() == nullptr) return nlohmann::ordered_json::parse(text);
  nlohmann::ordered_json object = nlohmann::ordered_json::object();
  for (const NodeMember& member : *node.table()) {
    object[member.key] = nlohmann::ordered_json::parse(literal(member.value));
  }
  return object;
}

nlohmann::ordered_json as_json(const LoadedConfig& loaded) {
  nlohmann::ordered_json config = nlohmann::ordered_json::object();
  for (const Setting& setting : settings(loaded.config)) {
    nlohmann::ordered_json& table = setting.section.empty() ? config : config[setting.section];
    table[setting.key] = value_as_json(setting.value);
  }
  return {{"config", config}, {"origins", loaded.origins}};
}

int show(const ConfigArguments& arguments) {
  // Loaded as for a comparison: that allows the options of every scheme that the file names.
  const LoadedConfig loaded =
      load_config(arguments.config, arguments.sets, scheme_catalog(), ConfigUse::kCompare);
  constexpr auto kReplace = nlohmann::json::error_handler_t::replace;  // paths are bytes
  print((arguments.json ? as_json(loaded).dump(2, ' ', false, kReplace)
                        : show_config(loaded, scheme_catalog())) +
        "\n");
  return 0;
}

// UserError for a model that train would refuse. The size of the vocabulary doesn't matter here.
void check_model(const Config& config) {
  constexpr int64_t kVocabulary = 256;
  static_cast<void>(Decoder(decoder_spec(config, kVocabulary), Precision::kFp32, at::kCPU));
}

// UserError for what compare would refuse of its cells; seeds make no difference to that.
void check_grid(const Config& config) {
  const GridCell* last = nullptr;
  const std::vector<GridCell> cells = expand_grid(config, scheme_catalog());
  for (const GridCell& cell : cells) {
    const bool is_seed = last != nullptr && last->label == cell.label &&
                         last->config.model.layers == cell.config.model.layers;
    if (!is_seed) check_model(cell.config);
    last = &cell;
  }
}

int check(const ConfigArguments& arguments) {
  const Config config =
      load_config(arguments.config, arguments.sets, scheme_catalog(), ConfigUse::kCompare).config;
  check_names(config);
  const bool has_grid = !config.compare.schemes.empty() || !config.compare.variants.empty();
  if (has_grid) check_grid(config);
  std::string refusal;  // of train, which allows the options of one scheme only
  try {
    check_model(
        load_config(arguments.config, arguments.sets, scheme_catalog(), ConfigUse::kTrain).config);
  } catch (const UserError& error) {
    if (!has_grid) throw;
    refusal = error.what();
  }
  if (refusal.empty()) {
    print(arguments.config + ": valid for train and compare\n");
  } else {
    print(fmt::format("{}: valid for compare; train refuses it: {}\n", arguments.config, refusal));
  }
  return 0;
}

int list(bool json) {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const Preset& preset : presets()) {
    if (json) {
      all.push_back({{"name", preset.name}, {"summary", preset.summary()}});
    } else {
      print(fmt::format("{:<12} {}\n", preset.name, preset.summary()));
    }
  }
  if (json) print(all.dump(2) + "\n");
  return 0;
}

void add_common(CLI::App* command, ConfigArguments& arguments) {
  command->add_option("CONFIG", arguments.config, "A TOML file, or the name of a shipped preset")
      ->required();
  command->add_option("--set", arguments.sets, "section.key=value, overrides the file; repeatable")
      ->allow_extra_args(false);
}

}  // namespace

void add_config(CLI::App& root, Action& action) {
  auto* config = root.add_subcommand("config", "Show, check or list configurations");
  config->require_subcommand(1);
  // The subcommands below inherit it.
  config->footer(
      "Examples:\n"
      "    wavroute config list\n"
      "    wavroute config show tiny --set residual.scheme=haares   every value, and its origin\n"
      "    wavroute config check my.toml");
  auto arguments = std::make_shared<ConfigArguments>();

  auto* show_command = config->add_subcommand("show", "Print every key, its value and its origin");
  add_common(show_command, *arguments);
  show_command->add_flag("--json", arguments->json, "Print JSON");
  show_command->callback(
      [&action, arguments] { action = [arguments] { return show(*arguments); }; });

  auto* check_command = config->add_subcommand("check", "Check whether a configuration is valid");
  add_common(check_command, *arguments);
  check_command->callback(
      [&action, arguments] { action = [arguments] { return check(*arguments); }; });

  auto* list_command = config->add_subcommand("list", "List the shipped presets");
  list_command->add_flag("--json", arguments->json, "Print JSON");
  list_command->callback(
      [&action, arguments] { action = [arguments] { return list(arguments->json); }; });
}

}  // namespace wavroute::app
