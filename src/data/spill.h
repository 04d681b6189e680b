// Documents on their way to the shards: kept in one file, in buckets, so that memory stays bounded.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "io/file.h"

namespace wavroute {

// 128 bits of a document's SHA-256: equal for equal documents, and for no others that anybody
// knows.
struct DocumentHash {
  uint64_t low = 0, high = 0;
  bool operator==(const DocumentHash&) const = default;
};
[[nodiscard]] DocumentHash hash_document(std::string_view text);

// An append-only file of blocks. A block is a header of 16 bytes (bucket and number of documents in
// 32 bits each, length of what follows in 64), then for each document its hash (16 bytes), its
// length (64 bits) and its text. Little-endian.
class SpillFile {
 public:
  // Goes on behind the first `length` bytes, which an earlier object wrote and synced; what lies
  // behind them is cut off. Documents are held in memory until they come to `buffer_bytes`.
  // UserError where the file is shorter, or has other blocks.
  SpillFile(std::filesystem::path path, uint32_t buckets, uint64_t length, uint64_t buffer_bytes);

  void add(uint32_t bucket, const DocumentHash& hash, std::string_view text);
  // Writes what memory holds; with `is_durable` also makes all of it durable. Returns the length.
  uint64_t flush(bool is_durable);

  // Calls visit(hash, text) for the documents of a bucket, in the order of add(). After flush().
  void read(uint32_t bucket,
            const std::function<void(const DocumentHash&, std::string_view)>& visit) const;

 private:
  struct Block {
    uint64_t at;  // of its documents
    uint64_t bytes;
    uint32_t documents;
  };
  struct Waiting {
    std::string records;
    uint32_t documents = 0;
  };

  void find_blocks();
  void read_at(uint64_t at, char* out, size_t size) const;

  std::filesystem::path path_;
  Descriptor file_;
  uint64_t length_;
  uint64_t buffer_bytes_;
  uint64_t waiting_bytes_ = 0;
  std::vector<Waiting> waiting_;            // by bucket
  std::vector<std::vector<Block>> blocks_;  // by bucket
};

}  // namespace wavroute
