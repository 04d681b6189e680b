#include "data/corpus.h"

#include <fmt/format.h>

#include <filesystem>
#include <tuple>
#include <utility>

#include "data/batches.h"
#include "data/split.h"
#include "data/token_cache.h"
#include "data/torch_source.h"
#include "io/file.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kTorchSource = "torch-source";

struct Opened {
  std::shared_ptr<const Tokenizer> tokenizer;
  Split train;
  Split valid;
};

std::shared_ptr<const Tokenizer> tokenizer_beside(const std::string& token_file) {
  const fs::path path = token_file + ".tokenizer.json";
  std::error_code ignored;
  if (!fs::exists(path, ignored)) {
    throw expected("the characters of a token file beside it", fmt::format("no {}", path.string()),
                   {}, "put its tokenizer.json there, or give the text itself as data.train");
  }
  return load_tokenizer(path);
}

// The installed source is text, whether it is trained on, validated on or scored.
void check_is_text(DataFormat format) {
  if (format != DataFormat::kTokens16 && format != DataFormat::kTokens32) return;
  throw expected(fmt::format("a file of ids for the format {}", to_string(format)),
                 fmt::format("\"{}\"", kTorchSource), {},
                 "\"torch-source\" is text: its format is auto, text or bytes");
}

Opened open_torch_source(const DataConfig& data, std::shared_ptr<const Tokenizer> tokenizer) {
  check_is_text(data.format);
  const fs::path root = find_torch_root();
  TorchSource source = read_torch_source(root, data.max_bytes);
  if (!tokenizer && data.tokenizer == TokenizerKind::kChars) {
    const TorchSource whole = data.max_bytes > 0 ? read_torch_source(root, 0) : source;
    tokenizer = make_chars_tokenizer(whole.train + whole.valid, kTorchSource);
  } else if (!tokenizer) {
    tokenizer = make_bytes_tokenizer();
  }
  const auto name = [](std::string_view split, int64_t files) {
    return fmt::format("{}, {} split, {} files", kTorchSource, split, files);
  };
  return {std::move(tokenizer),
          text_split(name("training", source.train_files), std::move(source.train)),
          text_split(name("validation", source.valid_files), std::move(source.valid))};
}

Split open_validation(const std::string& source, const Tokenizer& tokenizer, DataFormat format) {
  if (source == kTorchSource) {
    check_is_text(format);
    TorchSource text = read_torch_source(find_torch_root(), 0);
    return text_split(std::string(kTorchSource) + ", validation split", std::move(text.valid));
  }
  Split split = open_split(source, format);
  if (split.is_tokens) open_split_tokens(split, tokenizer);
  return split;
}

Opened open_file(const DataConfig& data, int64_t sequence,
                 std::shared_ptr<const Tokenizer> tokenizer) {
  Split whole = open_split(data.train, data.format);
  if (!tokenizer && data.tokenizer == TokenizerKind::kChars) {
    tokenizer = whole.is_tokens ? tokenizer_beside(data.train)
                                : make_chars_tokenizer(whole.text, whole.name);
  } else if (!tokenizer) {
    tokenizer = make_bytes_tokenizer();
  }
  if (whole.is_tokens) open_split_tokens(whole, *tokenizer);
  Opened opened{std::move(tokenizer), std::move(whole), {}};
  if (data.valid.empty()) {
    std::tie(opened.train, opened.valid) = part_split(opened.train, sequence, *opened.tokenizer);
  }
  if (data.max_bytes > 0) limit_split(opened.train, data.max_bytes, *opened.tokenizer);
  return opened;
}

// Tokenises a split; gives the SHA-256 of its text.
std::string finish(Split& split, const Tokenizer& tokenizer) {
  std::string sha256 = split.is_tokens ? sha256_hex(split.tokens.packed()) : sha256_hex(split.text);
  if (!split.is_tokens) {
    split.tokens = tokenise(split.text, sha256, tokenizer, split.name, split.offset);
  }
  return sha256;
}

int64_t bytes_of(const Split& split, const Tokenizer& tokenizer) {
  return split.is_tokens ? text_bytes(split.tokens, tokenizer) : std::ssize(split.text);
}

// "a.txt: 1.06 MB, 1059624 tokens, sha256 ...".
std::string describe(const Split& split, int64_t bytes, const std::string& sha256) {
  const std::string label =
      split.name.starts_with(kTorchSource) ? split.name : fs::path(split.name).filename().string();
  return fmt::format("{}: {:.2f} MB, {} tokens, sha256 {}", label, static_cast<double>(bytes) / 1e6,
                     split.tokens.size(), sha256);
}

}  // namespace

Corpus open_corpus(const DataConfig& data, int64_t context,
                   std::shared_ptr<const Tokenizer> known) {
  Opened opened = data.train == kTorchSource ? open_torch_source(data, std::move(known))
                                             : open_file(data, context + 1, std::move(known));
  const Tokenizer& tokenizer = *opened.tokenizer;
  if (!data.valid.empty()) opened.valid = open_validation(data.valid, tokenizer, data.format);

  Corpus corpus;
  corpus.tokenizer = opened.tokenizer;
  corpus.train_sha256 = finish(opened.train, tokenizer);
  require_one_sequence(opened.train.tokens, context);
  corpus.valid_sha256 = finish(opened.valid, tokenizer);
  require_one_sequence(opened.valid.tokens, context);
  corpus.train = opened.train.tokens;
  corpus.valid = opened.valid.tokens;
  corpus.train_bytes = bytes_of(opened.train, tokenizer);
  corpus.valid_bytes = bytes_of(opened.valid, tokenizer);
  const EvalWindows scored(corpus.valid, context, data.eval_tokens);
  corpus.valid_bytes_per_token = static_cast<double>(scored.scored_bytes(tokenizer)) /
                                 static_cast<double>(scored.scored_tokens());
  corpus.description = fmt::format("{}; {}; tokenizer {}, {} tokens",
                                   describe(opened.train, corpus.train_bytes, corpus.train_sha256),
                                   describe(opened.valid, corpus.valid_bytes, corpus.valid_sha256),
                                   tokenizer.name(), tokenizer.vocab_size());
  return corpus;
}

TokenView open_tokens(const std::string& source, const Tokenizer& tokenizer, DataFormat format) {
  Split split = open_validation(source, tokenizer, format);
  finish(split, tokenizer);
  if (split.tokens.size() < 2) {
    throw expected("at least 2 tokens (the first is not scored)", split.tokens.size(),
                   fmt::format("in {}", split.name), "use a longer text");
  }
  return split.tokens;
}

}  // namespace wavroute
