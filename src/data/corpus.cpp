#include "data/corpus.h"

#include <fmt/format.h>

#include <filesystem>
#include <system_error>
#include <tuple>
#include <utility>
#include <vector>

#include "data/batches.h"
#include "data/characters.h"
#include "data/prepared.h"
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

bool is_folder(const std::string& source) {
  std::error_code ignored;
  return fs::is_directory(source, ignored);
}

// The vocabulary of a file of tokens, beside it.
std::shared_ptr<const Tokenizer> tokenizer_beside(const std::string& token_file) {
  const fs::path own = token_file + ".tokenizer.json";
  const fs::path shared = fs::path(token_file).parent_path() / "tokenizer.json";  // of a folder
  for (const fs::path& path : {own, shared}) {
    std::error_code ignored;
    if (fs::exists(path, ignored)) return load_tokenizer(path);
  }
  throw expected("the characters of a token file beside it", fmt::format("no {}", own.string()), {},
                 "put its tokenizer.json there, or give the text itself as data.train");
}

// The installed source is text, whether it is trained on, validated on or scored.
void check_is_text(DataFormat format) {
  if (format != DataFormat::kTokens16 && format != DataFormat::kTokens32) return;
  throw expected(fmt::format("a file of ids for the format {}", to_string(format)),
                 fmt::format("\"{}\"", kTorchSource), {},
                 "\"torch-source\" is text: its format is auto, text or bytes");
}

Split open_torch_validation(DataFormat format) {
  check_is_text(format);
  TorchSource text = read_torch_source(find_torch_root(), 0);
  return text_split(std::string(kTorchSource) + ", validation split", std::move(text.valid));
}

// The validation text that data.valid names; of a file of tokens, these are still to be opened.
Split open_named(const std::string& source, DataFormat format) {
  return source == kTorchSource ? open_torch_validation(format) : open_split(source, format);
}

Split prepared_split(const PreparedText& text, SplitName name) {
  PreparedSplit opened = open_prepared_split(text, name);
  Split split;
  split.name = opened.tokens.name();
  split.is_tokens = true;
  split.tokens = std::move(opened.tokens);
  split.sha256 = std::move(opened.sha256);
  split.bytes = opened.bytes;
  return split;
}

PreparedText open_prepared_with(const std::string& folder, DataFormat format,
                                const Tokenizer* tokenizer) {
  if (format != DataFormat::kAuto) {
    throw expected("the format auto for a folder of prepared text", to_string(format),
                   fmt::format("for {}", folder), "leave data.format (eval: --format) out");
  }
  PreparedText text = open_prepared(folder);
  if (tokenizer == nullptr || tokenizer->hash() == text.tokenizer->hash()) return text;
  throw expected(fmt::format("text prepared with the tokenizer \"{}\" ({} tokens)",
                             tokenizer->name(), tokenizer->vocab_size()),
                 fmt::format("with another, \"{}\" ({} tokens)", text.tokenizer->name(),
                             text.tokenizer->vocab_size()),
                 fmt::format("in {}", folder),
                 "prepare it again: wavroute data prepare --tokenizer PATH");
}

// The validation split of a folder, or what a file holds, with its tokens.
Split open_validation(const std::string& source, const Tokenizer& tokenizer, DataFormat format) {
  if (is_folder(source)) {
    return prepared_split(open_prepared_with(source, format, &tokenizer), SplitName::kValid);
  }
  Split split = open_named(source, format);
  if (split.is_tokens) open_split_tokens(split, tokenizer);
  return split;
}

// The tokenizer that data.tokenizer names, where it doesn't follow from a text.
std::shared_ptr<const Tokenizer> named_tokenizer(const DataConfig& data) {
  return data.tokenizer == TokenizerKind::kFile ? load_tokenizer(data.tokenizer_path)
                                                : make_bytes_tokenizer();
}

// Of "chars": all characters of the training and the validation text.
std::shared_ptr<const Tokenizer> chars_of(const DataConfig& data,
                                          const std::vector<std::string_view>& texts,
                                          const std::vector<std::string>& names) {
  CharacterSet characters;
  for (size_t i = 0; i < texts.size(); ++i) characters.add(texts[i], names[i]);
  return make_chars_tokenizer(characters, data.unknown == UnknownText::kUnk);
}

Opened open_torch_source(const DataConfig& data, std::shared_ptr<const Tokenizer> tokenizer) {
  check_is_text(data.format);
  const fs::path root = find_torch_root();
  TorchSource source = read_torch_source(root, data.max_bytes);
  const bool has_valid = !data.valid.empty() && data.valid != kTorchSource;
  if (!tokenizer && data.tokenizer == TokenizerKind::kChars) {
    const TorchSource whole = data.max_bytes > 0 ? read_torch_source(root, 0) : source;
    std::vector<std::string_view> texts = {whole.train, whole.valid};
    std::vector<std::string> names(2, std::string(kTorchSource));
    const Split valid =
        has_valid && !is_folder(data.valid) ? open_named(data.valid, data.format) : Split{};
    if (!valid.is_tokens && !valid.text.empty()) {
      texts.push_back(valid.text);
      names.push_back(valid.name);
    }
    tokenizer = chars_of(data, texts, names);
  } else if (!tokenizer) {
    tokenizer = named_tokenizer(data);
  }
  const auto name = [](std::string_view split, int64_t files) {
    return fmt::format("{}, {} split, {} files", kTorchSource, split, files);
  };
  Opened opened = {std::move(tokenizer),
                   text_split(name("training", source.train_files), std::move(source.train)),
                   text_split(name("validation", source.valid_files), std::move(source.valid))};
  if (!data.valid.empty()) {
    opened.valid = open_validation(data.valid, *opened.tokenizer, data.format);
  }
  return opened;
}

Opened open_file(const DataConfig& data, int64_t sequence,
                 std::shared_ptr<const Tokenizer> tokenizer) {
  Split whole = open_split(data.train, data.format);
  if (!tokenizer && data.tokenizer == TokenizerKind::kChars) {
    const Split valid =
        data.valid.empty() || is_folder(data.valid) ? Split{} : open_named(data.valid, data.format);
    std::vector<std::string_view> texts = {whole.text};
    std::vector<std::string> names = {whole.name};
    if (!valid.is_tokens && !valid.text.empty()) {
      texts.push_back(valid.text);
      names.push_back(valid.name);
    }
    tokenizer = whole.is_tokens ? tokenizer_beside(data.train) : chars_of(data, texts, names);
  } else if (!tokenizer) {
    tokenizer = named_tokenizer(data);
  }
  if (whole.is_tokens) open_split_tokens(whole, *tokenizer);
  apply_unknown(whole, *tokenizer, data.unknown);
  Opened opened{std::move(tokenizer), std::move(whole), {}};
  if (data.valid.empty()) {
    std::tie(opened.train, opened.valid) = part_split(opened.train, sequence, *opened.tokenizer);
  } else {
    opened.valid = open_validation(data.valid, *opened.tokenizer, data.format);
  }
  if (data.max_bytes > 0) limit_split(opened.train, data.max_bytes, *opened.tokenizer);
  return opened;
}

// A folder has its tokenizer: data.tokenizer is "bytes", which is the default, or names the same.
Opened open_folder(const DataConfig& data, std::shared_ptr<const Tokenizer> tokenizer) {
  if (!tokenizer && data.tokenizer == TokenizerKind::kFile) tokenizer = named_tokenizer(data);
  const PreparedText text = open_prepared_with(data.train, data.format, tokenizer.get());
  if (data.tokenizer == TokenizerKind::kChars && text.tokenizer->name() != "chars") {
    throw expected("text prepared with the tokenizer \"chars\"",
                   fmt::format("with \"{}\"", text.tokenizer->name()),
                   fmt::format("in {}", data.train),
                   "leave data.tokenizer out: a folder of prepared text has its own");
  }
  Opened opened{text.tokenizer, prepared_split(text, SplitName::kTrain), {}};
  opened.valid = data.valid.empty() ? prepared_split(text, SplitName::kValid)
                                    : open_validation(data.valid, *opened.tokenizer, data.format);
  if (data.max_bytes > 0) limit_split(opened.train, data.max_bytes, *opened.tokenizer);
  return opened;
}

std::string sha256_of(const TokenView& tokens) {
  Sha256 sha256;
  for (const auto& packed : tokens.packed()) sha256.update(packed);
  return sha256.hex();
}

// Tokenises a split; gives the SHA-256 of its text.
std::string finish(Split& split, const Tokenizer& tokenizer) {
  if (!split.sha256.empty()) return split.sha256;
  std::string sha256 = split.is_tokens ? sha256_of(split.tokens) : sha256_hex(split.text);
  if (!split.is_tokens) {
    split.tokens = tokenise(split.text, sha256, tokenizer, split.name, split.offset);
  }
  return sha256;
}

int64_t bytes_of(const Split& split, const Tokenizer& tokenizer) {
  if (split.bytes >= 0) return split.bytes;
  return split.is_tokens ? text_bytes(split.tokens, tokenizer) : std::ssize(split.text);
}

// "a.txt: 1.06 MB, 1059624 tokens, sha256 ...".
std::string describe(const Split& split, int64_t bytes, const std::string& sha256) {
  const std::string label =
      split.name.starts_with(kTorchSource) ? split.name : fs::path(split.name).filename().string();
  const std::string unknown =
      split.unknown == 0 ? "" : fmt::format(", {} unknown characters", split.unknown);
  return fmt::format("{}: {:.2f} MB, {} tokens{}, sha256 {}", label,
                     static_cast<double>(bytes) / 1e6, split.tokens.size(), unknown, sha256);
}

}  // namespace

Corpus open_corpus(const DataConfig& data, int64_t context,
                   std::shared_ptr<const Tokenizer> known) {
  Opened opened = data.train == kTorchSource ? open_torch_source(data, std::move(known))
                  : is_folder(data.train)    ? open_folder(data, std::move(known))
                                             : open_file(data, context + 1, std::move(known));
  const Tokenizer& tokenizer = *opened.tokenizer;
  apply_unknown(opened.train, tokenizer, data.unknown);
  apply_unknown(opened.valid, tokenizer, data.unknown);

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

TokenView open_tokens(const std::string& source, const Tokenizer& tokenizer, DataFormat format,
                      UnknownText unknown, int64_t* count) {
  Split split = open_validation(source, tokenizer, format);
  apply_unknown(split, tokenizer, unknown);
  if (count != nullptr) *count = split.unknown;
  finish(split, tokenizer);
  if (split.tokens.size() < 2) {
    throw expected("at least 2 tokens (the first is not scored)", split.tokens.size(),
                   fmt::format("in {}", split.name), "use a longer text");
  }
  return split.tokens;
}

}  // namespace wavroute
