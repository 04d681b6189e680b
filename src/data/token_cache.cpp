#include "data/token_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/printable.h"
#include "base/utf8.h"
#include "data/pieces.h"
#include "data/tokenizer_kinds.h"
#include "io/file.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSuffix = ".tokens";

// A text, and what encoding it needs.
struct Task {
  std::string_view text;
  const Tokenizer& tokenizer;
  std::string_view name;
  uint64_t offset;
};

void for_each_piece(const Task& task, const std::function<void(std::span<const uint32_t>)>& visit) {
  encode_in_pieces(task.tokenizer, task.text, task.name, task.offset, visit);
}

// The cached tokens; nothing if the file is missing, damaged or of another text. Sets the file's
// time to now, for prune().
std::optional<TokenView> open_cached(const fs::path& path, const Tokenizer& tokenizer,
                                     std::string_view text_sha256) {
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return std::nullopt;
  try {
    TokenView tokens = open_tokens_of_text(path, tokenizer, text_sha256);
    fs::last_write_time(path, fs::file_time_type::clock::now(), ignored);
    return tokens;
  } catch (const Error&) {  // written anew
  }
  return std::nullopt;
}

// $WAVROUTE_CACHE_BYTES, else 10 GB.
uintmax_t cache_limit() {
  constexpr uintmax_t kDefault = 10'000'000'000;
  const char* value = std::getenv("WAVROUTE_CACHE_BYTES");
  if (value == nullptr || *value == '\0') return kDefault;
  const std::string_view text = value;
  uintmax_t bytes = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), bytes);
  if (error != std::errc() || end != text.data() + text.size()) {
    throw expected("a number of bytes", fmt::format("{} in WAVROUTE_CACHE_BYTES", printable(text)));
  }
  return bytes;
}

// Whether this is a name that the cache gives: 64 hexadecimal digits and the suffix.
bool is_cached_name(const fs::path& path) {
  const std::string stem = path.stem().string();
  return path.extension() == kSuffix && stem.size() == 64 &&
         stem.find_first_not_of("0123456789abcdef") == std::string::npos;
}

// Removes the files that were used longest ago until the others are within the limit. Those of the
// last hour stay: a run uses several. A process that has one mapped keeps it.
void prune(const fs::path& folder, uintmax_t limit) {
  struct Entry {
    fs::file_time_type used;
    uintmax_t bytes;
    fs::path path;
  };
  std::vector<Entry> entries;
  uintmax_t total = 0;
  std::error_code failed;
  for (fs::directory_iterator entry(folder, failed), end; !failed && entry != end;
       entry.increment(failed)) {
    std::error_code gone;
    if (!is_cached_name(entry->path()) || !entry->is_regular_file(gone)) continue;
    const fs::file_time_type used = entry->last_write_time(gone);
    const uintmax_t bytes = gone ? 0 : entry->file_size(gone);
    if (gone) continue;  // another process has removed it
    entries.push_back({used, bytes, entry->path()});
    total += bytes;
  }
  std::ranges::sort(entries, {}, &Entry::used);
  const auto recent = fs::file_time_type::clock::now() - std::chrono::hours(1);
  for (const Entry& entry : entries) {
    if (total <= limit || entry.used > recent) break;
    fs::remove(entry.path, failed);
    total -= entry.bytes;
  }
}

TokenView write_cached(const fs::path& path, const Task& task, int64_t count,
                       std::string_view text_sha256) {
  const fs::path folder = path.parent_path();
  make_folders(folder);
  remove_stale_temporaries(folder);
  TokenFileWriter writer(path, task.tokenizer, count, text_sha256);
  for_each_piece(task, [&](auto ids) { writer.append(ids); });
  writer.commit();
  prune(folder, cache_limit());
  return open_tokens_of_text(path, task.tokenizer, text_sha256).named(std::string(task.name));
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
  struct Parent {
    const char* variable;
    const char* below;
  };
  constexpr std::array<Parent, 3> kParents = {
      {{"WAVROUTE_CACHE", ""}, {"XDG_CACHE_HOME", "wavroute"}, {"HOME", ".cache/wavroute"}}};
  for (const auto& [variable, below] : kParents) {
    const char* value = std::getenv(variable);
    if (value == nullptr || *value == '\0') continue;
    if (std::string_view(value) == "off" && *below == '\0') return {};
    return fs::path(value) / below;
  }
  return {};
}

std::string cache_key(std::string_view text_sha256, const Tokenizer& tokenizer) {
  std::string content = std::string(text_sha256) + tokenizer.hash();
  // A byte or a character has one id and no other.
  const bool is_simple = tokenizer.name() == "bytes" || tokenizer.name() == "chars";
  if (!is_simple) content += fmt::format(" encoder {}", kBpeEncoderVersion);
  return sha256_hex(content);
}

TokenView tokenise(std::string_view text, std::string_view text_sha256, const Tokenizer& tokenizer,
                   std::string_view name, uint64_t offset) {
  const Task task{text, tokenizer, name, offset};
  const fs::path folder = cache_folder();
  if (folder.empty()) return keep_in_memory(task);
  const fs::path path = folder / (cache_key(text_sha256, tokenizer) + kSuffix);
  if (auto tokens = open_cached(path, tokenizer, text_sha256))
    return tokens->named(std::string(name));
  // Counting first: unknown characters are found before anything is written.
  int64_t count = 0;
  for_each_piece(task, [&](auto ids) { count += std::ssize(ids); });
  static_cast<void>(cache_limit());  // a wrong value is reported, not taken for a full disk
  try {
    return write_cached(path, task, count, text_sha256);
  } catch (const Error&) {  // not writable, or the disk is full: the cache is optional
    return keep_in_memory(task);
  }
}

}  // namespace wavroute
