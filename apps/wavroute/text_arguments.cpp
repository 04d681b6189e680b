#include "text_arguments.h"

#include <fmt/format.h>

#include "base/numbers.h"
#include "base/output.h"
#include "data/characters.h"
#include "data/corpus.h"

namespace wavroute::app {

void add_text_arguments(CLI::App& command, TextArguments& arguments) {
  command
      .add_option("--format", arguments.format,
                  "How --data is read: auto (a token file, else text), text, bytes (any bytes), "
                  "tokens16 or tokens32 (raw ids of 16 or 32 bits)")
      ->check(CLI::IsMember({"auto", "text", "bytes", "tokens16", "tokens32"}))
      ->capture_default_str();
  command
      .add_option(
          "--unknown", arguments.unknown,
          "Characters that a vocabulary of characters lacks: error, drop, or unk, the token "
          "that a model trained with data.unknown = \"unk\" has for them")
      ->check(CLI::IsMember({"error", "drop", "unk"}));
}

TokenView open_text(const std::string& data, const TextArguments& arguments,
                    const Tokenizer& tokenizer) {
  const UnknownText usual = unknown_token(tokenizer) ? UnknownText::kUnk : UnknownText::kError;
  int64_t unknown = 0;
  TokenView tokens =
      open_tokens(data, tokenizer, find_choice<DataFormat>(arguments.format).value(),
                  find_choice<UnknownText>(arguments.unknown).value_or(usual), &unknown);
  if (unknown > 0) {
    note(fmt::format("wavroute: {} unknown characters in {}: their bytes are not scored",
                     format_count(static_cast<double>(unknown)), data));
  }
  return tokens;
}

}  // namespace wavroute::app
