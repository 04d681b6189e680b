// What generate and chat share: how tokens are drawn, what a model writes as text, what fits.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "common.h"
#include "data/stop_text.h"
#include "model/sampling.h"
#include "wavroute/tokenizer.h"

namespace wavroute::app {

// Adds --temperature and the like.
void add_sampling(CLI::App& command, Sampling& sampling);

// What a model writes after one prompt: complete characters, up to a stop.
class Writer {
 public:
  Writer(const LoadedModel& loaded, const std::vector<std::string>& stops)
      : tokenizer_(loaded.tokenizer),
        decoder_(loaded.tokenizer, /*continues=*/true),
        stop_(stops) {}

  // What can be shown with the token.
  std::string feed(uint32_t token);
  // And at the end.
  std::string finish();
  [[nodiscard]] bool has_stopped() const { return stop_.has_stopped(); }
  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  std::string take(std::string piece);

  std::shared_ptr<const Tokenizer> tokenizer_;
  StreamDecoder decoder_;
  StopText stop_;
  std::string text_;
};

// UserError where the keys and values of `prompts` prompts are more than memory holds. They are
// allocated for all tokens in advance, for every prompt as for the longest.
void check_cache(const LoadedModel& loaded, size_t prompts, int64_t longest, int64_t tokens);

// Whether so many tokens are more than the model was trained with; says so on stderr.
bool note_context(const LoadedModel& loaded, int64_t tokens);
// Says on stderr why tokens were slower than they can be (GenerationResult::trouble), if they were.
void note_trouble(const std::string& trouble);

}  // namespace wavroute::app
