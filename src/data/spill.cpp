#include "data/spill.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <span>
#include <utility>

#include "wavroute/error.h"

namespace wavroute {
namespace {

static_assert(std::endian::native == std::endian::little, "records are read without conversion");

struct BlockHeader {
  uint32_t bucket;
  uint32_t documents;
  uint64_t bytes;
};
static_assert(sizeof(BlockHeader) == 16);

struct RecordHeader {
  DocumentHash hash;
  uint64_t length;
};
static_assert(sizeof(RecordHeader) == 24);

constexpr size_t kReadBytes = size_t{1} << 20;

[[noreturn]] void fail_to_go_on(const std::filesystem::path& path, const std::string& given) {
  throw expected("the documents that were read so far", given, fmt::format("in {}", path.string()),
                 "remove the folder and prepare again");
}

}  // namespace

DocumentHash hash_document(std::string_view text) {
  const std::string hex = sha256_hex(text);
  DocumentHash hash;
  std::from_chars(hex.data(), hex.data() + 16, hash.low, 16);
  std::from_chars(hex.data() + 16, hex.data() + 32, hash.high, 16);
  return hash;
}

SpillFile::SpillFile(std::filesystem::path path, uint32_t buckets, uint64_t length,
                     uint64_t buffer_bytes)
    : path_(std::move(path)),
      file_(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666)),
      length_(length),
      buffer_bytes_(buffer_bytes),
      waiting_(buckets),
      blocks_(buckets) {
  if (file_.get() < 0) throw_system_error("open", path_, errno);
  struct stat status {};
  if (::fstat(file_.get(), &status) != 0) throw_system_error("read", path_, errno);
  if (static_cast<uint64_t>(status.st_size) < length_) {
    fail_to_go_on(path_, fmt::format("{} of {} bytes", status.st_size, length_));
  }
  if (::ftruncate(file_.get(), static_cast<off_t>(length_)) != 0) {
    throw_system_error("write", path_, errno);
  }
  find_blocks();
  if (::lseek(file_.get(), static_cast<off_t>(length_), SEEK_SET) < 0) {
    throw_system_error("write", path_, errno);
  }
}

void SpillFile::read_at(uint64_t at, char* out, size_t size) const {
  while (size > 0) {
    const ssize_t count = ::pread(file_.get(), out, size, static_cast<off_t>(at));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw_system_error("read", path_, errno);
    if (count == 0) fail_to_go_on(path_, "a part of them");
    at += static_cast<uint64_t>(count);
    out += count;
    size -= static_cast<size_t>(count);
  }
}

void SpillFile::find_blocks() {
  for (uint64_t at = 0; at < length_;) {
    BlockHeader header{};
    if (length_ - at < sizeof header) fail_to_go_on(path_, "others");
    read_at(at, reinterpret_cast<char*>(&header), sizeof header);
    at += sizeof header;
    if (header.bucket >= blocks_.size() || header.bytes > length_ - at) {
      fail_to_go_on(path_, "others");
    }
    blocks_[header.bucket].push_back({at, header.bytes, header.documents});
    at += header.bytes;
  }
}

void SpillFile::add(uint32_t bucket, const DocumentHash& hash, std::string_view text) {
  const RecordHeader header = {hash, text.size()};
  Waiting& waiting = waiting_[bucket];
  waiting.records.append(reinterpret_cast<const char*>(&header), sizeof header);
  waiting.records.append(text);
  ++waiting.documents;
  waiting_bytes_ += sizeof header + text.size();
  if (waiting_bytes_ >= buffer_bytes_) flush(/*is_durable=*/false);
}

uint64_t SpillFile::flush(bool is_durable) {
  for (uint32_t bucket = 0; bucket < waiting_.size(); ++bucket) {
    Waiting& waiting = waiting_[bucket];
    if (waiting.documents == 0) continue;
    const BlockHeader header = {bucket, waiting.documents, waiting.records.size()};
    write_all(file_, std::as_bytes(std::span(&header, 1)), path_);
    write_all(file_, std::as_bytes(std::span(waiting.records)), path_);
    length_ += sizeof header;
    blocks_[bucket].push_back({length_, header.bytes, header.documents});
    length_ += header.bytes;
    // Its memory goes back: buckets get their documents unevenly.
    waiting = {};
  }
  waiting_bytes_ = 0;
  if (is_durable && ::fdatasync(file_.get()) != 0) throw_system_error("sync", path_, errno);
  return length_;
}

void SpillFile::read(
    uint32_t bucket,
    const std::function<void(const DocumentHash&, std::string_view)>& visit) const {
  std::string buffer;
  for (const Block& block : blocks_[bucket]) {
    // A window onto the block, which may be longer than memory is to be.
    uint64_t at = block.at;
    const uint64_t end = block.at + block.bytes;
    buffer.clear();
    size_t begin = 0;
    const auto hold = [&](size_t size) {
      if (buffer.size() - begin >= size) return;
      buffer.erase(0, begin);
      begin = 0;
      const uint64_t wanted =
          std::min<uint64_t>(std::max(size, kReadBytes), end - at + buffer.size());
      if (wanted < size) fail_to_go_on(path_, "others");
      const size_t held = buffer.size();
      buffer.resize(wanted);
      read_at(at, buffer.data() + held, wanted - held);
      at += wanted - held;
    };
    for (uint32_t i = 0; i < block.documents; ++i) {
      RecordHeader header{};
      hold(sizeof header);
      std::memcpy(&header, buffer.data() + begin, sizeof header);
      if (header.length > block.bytes) fail_to_go_on(path_, "others");
      hold(sizeof header + header.length);
      visit(header.hash, std::string_view(buffer).substr(begin + sizeof header, header.length));
      begin += sizeof header + header.length;
    }
  }
}

}  // namespace wavroute
