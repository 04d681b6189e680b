// A model that was saved, and the texts that it writes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "wavroute/choices.h"
#include "wavroute/decoder.h"
#include "wavroute/tokenizer.h"

namespace wavroute {

struct TextModel {
  std::unique_ptr<Decoder> decoder;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::vector<uint32_t> end_tokens;  // each ends a text
};

struct LoadOptions {
  std::string checkpoint;  // of a run folder: "best" or a step; empty: the newest
  Precision precision = Precision::kFp32;
  DeviceKind device = DeviceKind::kCpu;
};

// Reads a run folder, a checkpoint folder, what save_model() wrote, or a Hugging Face Llama folder
// with one of our tokenizers. UserError for what is not there, is damaged or is not known.
[[nodiscard]] TextModel load_text_model(const std::filesystem::path& run,
                                        const LoadOptions& options = {});

struct TextOptions {
  int64_t tokens = 256;      // at most
  double temperature = 0.8;  // 0: always the likeliest token
  int64_t top_k = 0;         // only the k likeliest; 0: all
  double top_p = 1.0;        // only the likeliest that add up to at least p
  double min_p = 0.0;        // only what has at least this share of the likeliest's probability
  double repetition_penalty = 1.0;  // of tokens that the text has; 1: none
  uint64_t seed = 1;                // of the draws
};

// Gets the text as it is written, in complete characters (UTF-8); false ends it.
using OnText = std::function<bool(std::string_view piece)>;

// What the model writes after `prompt`, up to one of its end tokens. UserError for a prompt without
// a token, one that the tokenizer does not take, and options out of range.
std::string continue_text(const TextModel& model, std::string_view prompt,
                          const TextOptions& options = {}, const OnText& on_text = {});

}  // namespace wavroute
