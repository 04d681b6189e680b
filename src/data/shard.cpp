#include "data/shard.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "base/philox.h"
#include "data/pieces.h"
#include "data/token_file.h"
#include "io/file.h"

namespace wavroute {
namespace {

constexpr size_t kBlockBytes = size_t{4} << 20;
constexpr size_t kChunkBytes = size_t{1} << 20;  // of text that a thread encodes at a time

// Consecutive documents that one thread encodes.
struct Chunk {
  size_t begin = 0, end = 0;
  std::vector<std::byte> packed;
  int64_t tokens = 0;
};

std::vector<Chunk> cut(const std::vector<std::string_view>& documents) {
  std::vector<Chunk> chunks;
  size_t bytes = kChunkBytes;
  for (size_t i = 0; i < documents.size(); ++i) {
    if (bytes >= kChunkBytes) {
      chunks.push_back({i, i, {}, 0});
      bytes = 0;
    }
    bytes += documents[i].size();
    chunks.back().end = i + 1;
  }
  return chunks;
}

void encode(Chunk& chunk, const std::vector<std::string_view>& documents,
            const Tokenizer& tokenizer) {
  const int width = token_width(tokenizer.vocab_size());
  const std::optional<uint32_t> end = tokenizer.end_token();
  const auto append = [&](std::span<const uint32_t> ids) {
    pack_tokens(ids, width, chunk.packed);
    chunk.tokens += std::ssize(ids);
  };
  for (size_t i = chunk.begin; i < chunk.end; ++i) {
    encode_in_pieces(tokenizer, documents[i], "a document", 0, append);
    if (end) append(std::span(&*end, 1));
  }
}

}  // namespace

std::string_view ShardText::keep(std::string_view text) {
  if (room_ < text.size()) {
    room_ = std::max(text.size(), kBlockBytes);
    blocks_.push_back(std::make_unique_for_overwrite<char[]>(room_));
    free_ = blocks_.back().get();
  }
  std::memcpy(free_, text.data(), text.size());
  const std::string_view kept(free_, text.size());
  free_ += text.size();
  room_ -= text.size();
  return kept;
}

void ShardText::add(const DocumentHash& hash, std::string_view text) {
  const auto [place, is_new] = places_.try_emplace(hash, static_cast<uint32_t>(texts_.size()));
  if (is_new) texts_.push_back(keep(text));
  duplicates_ += is_new ? 0 : 1;
  if (is_new || !dedup_) order_.push_back(place->second);
}

std::vector<std::string_view> ShardText::shuffled(uint64_t seed, std::string_view name) const {
  std::vector<uint32_t> order = order_;
  const Philox random(seed, "shuffle", name);
  for (size_t left = order.size(); left > 1; --left) {
    const auto bits = random.bits(left);
    const uint64_t draw = (static_cast<uint64_t>(bits[0]) << 32) | bits[1];
    // The bias of a remainder is below 2^-32.
    std::swap(order[left - 1], order[draw % left]);
  }
  std::vector<std::string_view> documents;
  documents.reserve(order.size());
  for (const uint32_t place : order) documents.push_back(texts_[place]);
  return documents;
}

ManifestFile write_shard(const std::filesystem::path& path,
                         const std::vector<std::string_view>& documents, const Tokenizer& tokenizer,
                         ThreadPool& pool, const StopCheck& is_stopped) {
  ManifestFile file;
  Sha256 sha256;  // of the text
  for (const std::string_view document : documents) {
    sha256.update(document);
    file.counts.bytes += std::ssize(document);
  }
  file.counts.documents = std::ssize(documents);
  std::vector<Chunk> chunks = cut(documents);
  pool.run(std::ssize(chunks), [&](int64_t chunk, int /*thread*/) {
    if (says_stop(is_stopped)) return;
    encode(chunks[static_cast<size_t>(chunk)], documents, tokenizer);
  });
  if (says_stop(is_stopped)) throw ReadingStopped{};
  for (const Chunk& chunk : chunks) file.counts.tokens += chunk.tokens;
  TokenFileWriter writer(path, tokenizer, file.counts.tokens, sha256.hex());
  for (Chunk& chunk : chunks) writer.append_packed(std::exchange(chunk.packed, {}));
  file.sha256 = writer.commit();
  return file;
}

}  // namespace wavroute
