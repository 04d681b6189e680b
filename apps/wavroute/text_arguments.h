// The text that a command reads with a model's tokenizer.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "data/token_file.h"
#include "wavroute/tokenizer.h"

namespace wavroute::app {

struct TextArguments {
  std::string format = "auto";
  std::string unknown;
};

// What --data takes.
inline constexpr const char* kTextHelp =
    "A text file, a token file, raw token ids (--format), torch-source, or a folder that data "
    "prepare made: its validation split";

void add_text_arguments(CLI::App& command, TextArguments& arguments);

// Without --unknown a model that has a token for unknown characters reads them as that.
[[nodiscard]] TokenView open_text(const std::string& data, const TextArguments& arguments,
                                  const Tokenizer& tokenizer);

}  // namespace wavroute::app
