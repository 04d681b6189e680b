#include "continuing.h"

#include <fmt/format.h>

#include <cmath>
#include <utility>

#include "base/numbers.h"
#include "base/output.h"
#include "model/generate.h"
#include "validators.h"
#include "wavroute/error.h"

namespace wavroute::app {

void add_sampling(CLI::App& command, Sampling& sampling) {
  command.add_option("--temperature", sampling.temperature, "0: always the likeliest token")
      ->capture_default_str();
  command.add_option("--top-k", sampling.top_k, "Only the k likeliest tokens; 0: all")
      ->check(integer_from(0))
      ->capture_default_str();
  command
      .add_option("--top-p", sampling.top_p,
                  "Only the likeliest tokens that together have this probability; 1: all")
      ->capture_default_str();
  command
      .add_option("--min-p", sampling.min_p,
                  "Only tokens with this share of the likeliest one's probability; 0: all")
      ->capture_default_str();
  command
      .add_option("--repetition-penalty", sampling.repetition_penalty,
                  "Above 1: tokens that the text has become less likely")
      ->capture_default_str();
  command.add_option("--seed", sampling.seed, "Of the draws")
      ->check(integer_from(0))
      ->capture_default_str();
}

std::string Writer::feed(uint32_t token) {
  if (tokenizer_->is_special(token)) return {};  // a mark, no text
  return take(stop_.feed(decoder_.feed(token)));
}

std::string Writer::finish() {
  std::string rest = stop_.feed(decoder_.finish());
  rest += stop_.finish();
  return take(std::move(rest));
}

std::string Writer::take(std::string piece) {
  text_ += piece;
  return piece;
}

void check_cache(const LoadedModel& loaded, size_t prompts, int64_t longest, int64_t tokens) {
  const double a_token =
      cache_bytes_per_token(*loaded.model, loaded.program_or_null()) * static_cast<double>(prompts);
  const double most = std::floor(static_cast<double>(loaded.free_memory) / a_token);
  if (static_cast<double>(longest) + static_cast<double>(tokens) <= most) return;
  const std::string of_all = prompts > 1 ? fmt::format(", {} prompts at once", prompts) : "";
  throw expected(fmt::format("a cache of keys and values within the {} that are free",
                             format_bytes(static_cast<double>(loaded.free_memory))),
                 fmt::format("{} for --tokens {} after a prompt of {}{}",
                             format_bytes(a_token * (static_cast<double>(longest) +
                                                     static_cast<double>(tokens))),
                             tokens, longest, of_all),
                 {},
                 most > static_cast<double>(longest)
                     ? fmt::format("--tokens {:.0f} fits", most - static_cast<double>(longest))
                     : "fewer or shorter prompts, or a machine with more memory");
}

bool note_context(const LoadedModel& loaded, int64_t tokens) {
  const int64_t context = loaded.model->spec().model.context;
  if (tokens <= context) return false;
  note(
      fmt::format("wavroute: {} tokens are more than the {} that the model was trained with: "
                  "what comes after them may be worse",
                  tokens, context));
  return true;
}

void note_trouble(const std::string& trouble) {
  if (trouble.empty()) return;
  note(fmt::format("wavroute: tokens are not recorded, which makes them slower: {}",
                   trouble.substr(0, trouble.find('\n'))));
}

}  // namespace wavroute::app
