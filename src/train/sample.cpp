#include "train/sample.h"

#include <algorithm>
#include <vector>

#include "model/generate.h"

namespace wavroute {

std::string sample_text(const Session& session, const Progress& progress) {
  const SampleConfig& sample = session.config.sample;
  const Tokenizer& tokenizer = *session.corpus.tokenizer;
  const bool has_prompt = !sample.prompt.empty();
  std::vector<uint32_t> prompt;
  if (has_prompt) {
    prompt = tokenizer.encode_prompt(sample.prompt, "sample.prompt");
  } else {
    for (int64_t i = 0; i < std::min(kPromptTokens, session.corpus.valid.size()); ++i) {
      prompt.push_back(session.corpus.valid.at(i));
    }
  }
  const Sampling sampling{.temperature = sample.temperature,
                          .top_k = sample.top_k,
                          .top_p = sample.top_p,
                          .seed = static_cast<uint64_t>(session.config.train.seed)};
  StreamDecoder decoder(session.corpus.tokenizer, /*continues=*/true);
  std::string text = tokenizer.decode(prompt, /*skip_special=*/has_prompt);
  static_cast<void>(generate(*session.model, {prompt}, sample.tokens, sampling, nullptr, progress,
                             [&](size_t, uint32_t token) {
                               text += decoder.feed(token);
                               return true;
                             }));
  return text + decoder.finish();
}

}  // namespace wavroute
