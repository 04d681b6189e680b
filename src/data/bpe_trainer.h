// Training a byte-level byte-pair encoding with GPT-2's rules.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>

namespace wavroute {

// Texts are added, then trained on once. The result depends on how often each word stands in them,
// not on their order, unless there are more different words than fit.
class BpeTrainer {
 public:
  // The text, without a document's end, which is a token of its own.
  void add(std::string_view text);

  // Bytes that were added, and different words among them.
  [[nodiscard]] uint64_t bytes() const { return bytes_; }
  [[nodiscard]] size_t words() const { return counts_.size(); }

  // UserError for a number of tokens that train() can't give.
  static void check(int64_t vocab_size);

  struct Trained {
    std::string json;        // the text of a tokenizer.json
    int64_t vocab_size = 0;  // less than was asked for where no pair stands there twice any more
  };
  // `vocab_size` counts <|endoftext|> (id 0) and the 256 bytes (from 1 on) as well. UserError where
  // it is below 257. The most frequent pair of neighbours becomes a token, of equally frequent ones
  // that with the lower ids, as `tokenizers` trains with min_frequency 2.
  [[nodiscard]] Trained train(int64_t vocab_size) const;

 private:
  // Drops the rarest words until half of the limit is free.
  void drop_rare();

  std::unordered_map<std::string, uint64_t> counts_;  // of words
  uint64_t bytes_ = 0;
};

}  // namespace wavroute
