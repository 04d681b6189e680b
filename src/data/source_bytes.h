// The bytes of one source, unpacked, as they arrive.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "data/stop_check.h"
#include "io/file.h"

namespace wavroute {

// A file, or "-" for standard input, read from its beginning to its end. What begins like gzip or
// zstd data is unpacked, whatever its name: several members or frames are one text. Memory is
// bounded (a zstd window of at most 128 MiB).
//
// UserError: no such file, a folder, packed data that is cut short, damaged, or has something else
// behind it.
class SourceBytes {
 public:
  // `is_stopped`: asked before each wait for data; ReadingStopped is thrown where it says so.
  explicit SourceBytes(const std::string& path, StopCheck is_stopped = {});
  SourceBytes(const SourceBytes&) = delete;
  SourceBytes& operator=(const SourceBytes&) = delete;
  ~SourceBytes();

  // Fills as much of `out` as there is; 0 only at the end.
  [[nodiscard]] size_t read(std::span<char> out);
  // Of the source as it is stored: bytes read so far, and at the end their SHA-256 in hexadecimal.
  [[nodiscard]] uint64_t stored_bytes() const noexcept { return stored_bytes_; }
  [[nodiscard]] std::string sha256();
  // "gzip", "zstd", or empty for what isn't packed.
  [[nodiscard]] const std::string& packing() const noexcept { return packing_; }

  // Unpacks one format; knows where it stands between two calls.
  class Unpacker;

 private:
  [[nodiscard]] bool refill();
  [[nodiscard]] size_t unpack(std::span<char> out);

  std::string name_;
  StopCheck is_stopped_;
  Descriptor file_;
  Sha256 sha256_;
  uint64_t stored_bytes_ = 0;
  std::string buffer_;
  std::span<const char> input_;  // of the buffer: read, not yet used
  bool ended_ = false;           // the file has no more
  std::string packing_;
  std::unique_ptr<Unpacker> unpacker_;
};

}  // namespace wavroute
