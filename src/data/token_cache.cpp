#include "data/token_cache.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/utf8.h"
#include "io/file.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;

constexpr size_t kPieceBytes = size_t{1} << 20;

// A text, and what encoding it needs.
struct Task {
  std::string_view text;
  const Tokenizer& tokenizer;
  std::string_view name;
  uint64_t offset;
};

// Calls visit(ids) with the tokens of the text, piece by piece, in order.
void for_each_piece(const Task& task, const std::function<void(std::span<const uint32_t>)>& visit) {
  for (size_t begin = 0; begin < task.text.size();) {
    const size_t end = utf8_boundary(task.text, begin + kPieceBytes);
    visit(task.tokenizer.encode(task.text.substr(begin, end - begin), task.name,
                                task.offset + begin));
    begin = end;
  }
}

// Reads every token, which throws where one is not of the vocabulary.
void check_all(const TokenView& tokens) {
  std::vector<int64_t> piece(kPieceBytes);
  for (int64_t begin = 0; begin < tokens.size(); begin += static_cast<int64_t>(piece.size())) {
    const int64_t count = std::min<int64_t>(tokens.size() - begin, piece.size());
    tokens.copy(begin, std::span(piece).first(static_cast<size_t>(count)));
  }
}

// The cached tokens; nothing where the file is missing or damaged.
std::optional<TokenView> open_cached(const fs::path& path, const Tokenizer& tokenizer) {
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return std::nullopt;
  try {
    TokenView tokens = open_token_file(path, tokenizer);
    check_all(tokens);
    return tokens;
  } catch (const Error&) {  // damaged: written anew
  }
  return std::nullopt;
}

TokenView write_cached(const fs::path& path, const Task& task, int64_t count) {
  make_folders(path.parent_path());
  remove_stale_temporaries(path.parent_path());
  TokenFileWriter writer(path, task.tokenizer, count);
  for_each_piece(task, [&](auto ids) { writer.append(ids); });
  writer.commit();
  return open_token_file(path, task.tokenizer).named(std::string(task.name));
}

TokenView keep_in_memory(const Task& task) {
  const auto packed = std::make_shared<std::vector<std::byte>>();
  const int64_t vocab_size = task.tokenizer.vocab_size();
  const int width = token_width(vocab_size);
  for_each_piece(task, [&](auto ids) { pack_tokens(ids, width, *packed); });
  return {packed, *packed, width, vocab_size, std::string(task.name)};
}

}  // namespace

fs::path cache_folder() {
  struct Place {
    const char* variable;
    const char* below;
  };
  constexpr std::array<Place, 3> kPlaces = {
      {{"WAVROUTE_CACHE", ""}, {"XDG_CACHE_HOME", "wavroute"}, {"HOME", ".cache/wavroute"}}};
  for (const auto& [variable, below] : kPlaces) {
    const char* value = std::getenv(variable);
    if (value != nullptr && *value != '\0') return fs::path(value) / below;
  }
  return {};
}

TokenView tokenise(std::string_view text, std::string_view text_sha256, const Tokenizer& tokenizer,
                   std::string_view name, uint64_t offset) {
  const Task task{text, tokenizer, name, offset};
  const fs::path folder = cache_folder();
  if (folder.empty()) return keep_in_memory(task);
  const std::string key = sha256_hex(std::string(text_sha256) + tokenizer.hash());
  const fs::path path = folder / (key + ".tokens");
  if (auto tokens = open_cached(path, tokenizer)) return tokens->named(std::string(name));
  // Counting first finds every unknown character before anything is written.
  int64_t count = 0;
  for_each_piece(task, [&](auto ids) { count += std::ssize(ids); });
  try {
    return write_cached(path, task, count);
  } catch (const Error&) {  // a cache is a convenience: not writable, or the disk is full
    return keep_in_memory(task);
  }
}

}  // namespace wavroute
