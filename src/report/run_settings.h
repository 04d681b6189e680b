// What was run, and what its loss was measured on: which runs are samples of one configuration, and
// which losses can be subtracted.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace wavroute {

// The part of the configuration that determines a run's results: dotted key -> value, as TOML text.
// Without the seed, and without keys that change no result (see changes_results).
using RunSettings = std::map<std::string, std::string>;

// The one setting that no config.toml has: the steps that were planned at first, of a run that got
// more of them since.
inline constexpr const char* kScheduleSteps = "schedule_steps";

// Whether a run's result follows from the key. It doesn't from the seed's siblings here:
//   name, compare.*, sample.*                        names, and what never touches training
//   train.seed                                       the sample, not what is sampled
//   train.{log,eval,save}_every, train.keep          when something is written
//   train.sinks                                      where it is written besides
//   train.{threads,micro_batch,recompute}            how a step is divided: at most its rounding
[[nodiscard]] bool changes_results(std::string_view dotted_key);

struct RunConfig {
  RunSettings settings;
  std::optional<int64_t> seed, steps;  // if the text has them
};

// The content of a config.toml; in `settings`, a key that it leaves out has its default. Throws
// UserError for text that is not TOML, with `file` and the line.
[[nodiscard]] RunConfig read_run_config(const std::string& text, const std::string& file);

// The keys in which a run is another than its plan. Where the texts lie, and what the plan leaves
// open ("auto", sizes that follow from others), says nothing.
[[nodiscard]] std::vector<std::string> unplanned_keys(const RunSettings& planned,
                                                      const RunSettings& run);

// Puts the texts' sha256 in place of where they were found: a text that was moved is the same.
// The same for the weights that a run started from; nothing without a digest.
void identify_weights(RunSettings& settings, const std::string& init_sha256);
void identify_texts(RunSettings& settings, const std::string& train_sha256,
                    const std::string& valid_sha256);

// A value as a table shows it: a string without quotes, the first digits of a hash.
[[nodiscard]] std::string shown_value(const std::string& value);

// What a validation loss was measured on. Empty or absent: not known.
struct Measure {
  std::string valid_text;             // sha256
  std::string train_text;             // sha256
  std::string tokenizer;              // its kind and the size of its vocabulary
  std::optional<int64_t> context;     // tokens
  std::optional<int64_t> max_tokens;  // data.eval_tokens: at most this many are scored
  std::optional<int64_t> tokens;      // scored
  std::optional<int64_t> bytes;       // of the text that they stand for

  bool operator==(const Measure&) const = default;
};

// Why a loss measured on `a` is no distance from one measured on `b`, as "another tokenizer" or
// "tokenizer not known"; empty where it is one.
[[nodiscard]] std::string why_no_difference(const Measure& a, const Measure& b);
// Whether both scored the same bytes of text, so that their bits per byte can be compared although
// their losses can't.
[[nodiscard]] bool same_bytes_scored(const Measure& a, const Measure& b);

}  // namespace wavroute
