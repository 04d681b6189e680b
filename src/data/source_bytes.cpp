#include "data/source_bytes.h"

#include <fmt/format.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "wavroute/error.h"

namespace wavroute {

// One call takes from `input`, shortens it, and gives how much of `out` it has filled.
class SourceBytes::Unpacker {
 public:
  virtual ~Unpacker() = default;
  [[nodiscard]] virtual size_t step(std::span<const char>& input, std::span<char> out) = 0;
  // Whether the data may end here: at the end of a member or frame.
  [[nodiscard]] virtual bool may_end() const = 0;
};

namespace {

using std::string_view_literals::operator""sv;

constexpr size_t kBufferBytes = size_t{1} << 18;
constexpr std::string_view kGzip = "\x1f\x8b"sv, kZstd = "\x28\xb5\x2f\xfd"sv;

// What an unpacker says of damaged data; the caller knows the name and the place.
struct Damaged {
  std::string what;
};

class Gunzip : public SourceBytes::Unpacker {
 public:
  Gunzip() {
    constexpr int kGzipOnly = 16 + MAX_WBITS;
    if (inflateInit2(&stream_, kGzipOnly) != Z_OK)
      throw Failure("cannot start to unpack gzip data");
  }
  Gunzip(const Gunzip&) = delete;
  Gunzip& operator=(const Gunzip&) = delete;
  ~Gunzip() override { inflateEnd(&stream_); }

  [[nodiscard]] size_t step(std::span<const char>& input, std::span<char> out) override {
    if (between_) {
      // Another member, or zeros that fill a block of a tape.
      padded_ = padded_ || input.front() == '\0';
      while (padded_ && !input.empty() && input.front() == '\0') input = input.subspan(1);
      if (input.empty()) return 0;
      if (padded_ || input.front() != kGzip[0]) throw Damaged{"something else behind its end"};
      inflateReset(&stream_);
      between_ = false;
    }
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(input.data()));
    stream_.avail_in = static_cast<uInt>(input.size());
    stream_.next_out = reinterpret_cast<Bytef*>(out.data());
    stream_.avail_out = static_cast<uInt>(std::min<size_t>(out.size(), UINT32_MAX));
    const uInt room = stream_.avail_out;
    const int result = inflate(&stream_, Z_NO_FLUSH);
    input = input.last(stream_.avail_in);
    if (result == Z_MEM_ERROR) throw Failure("not enough memory to unpack gzip data");
    if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR) {
      throw Damaged{stream_.msg != nullptr ? stream_.msg : "damaged data"};
    }
    between_ = result == Z_STREAM_END;
    return room - stream_.avail_out;
  }
  [[nodiscard]] bool may_end() const override { return between_; }

 private:
  z_stream stream_{};
  bool between_ = false;  // behind a member
  bool padded_ = false;   // and behind zeros
};

class Unzstd : public SourceBytes::Unpacker {
 public:
  Unzstd() : stream_(ZSTD_createDStream()) {
    if (!stream_) throw Failure("cannot start to unpack zstd data");
  }

  [[nodiscard]] size_t step(std::span<const char>& input, std::span<char> out) override {
    ZSTD_inBuffer in = {input.data(), input.size(), 0};
    ZSTD_outBuffer filled = {out.data(), out.size(), 0};
    const size_t result = ZSTD_decompressStream(stream_.get(), &filled, &in);
    if (ZSTD_isError(result) != 0) throw Damaged{ZSTD_getErrorName(result)};
    input = input.subspan(in.pos);
    // 0: the end of a frame, all of it given out.
    between_ = result == 0;
    return filled.pos;
  }
  [[nodiscard]] bool may_end() const override { return between_; }

 private:
  struct Free {
    void operator()(ZSTD_DStream* stream) const noexcept { ZSTD_freeDStream(stream); }
  };
  std::unique_ptr<ZSTD_DStream, Free> stream_;
  bool between_ = false;
};

}  // namespace

SourceBytes::SourceBytes(const std::string& path, StopCheck is_stopped)
    : name_(path == "-" ? "standard input" : path),
      is_stopped_(std::move(is_stopped)),
      buffer_(kBufferBytes + kZstd.size(), '\0') {
  uint64_t bytes = 0;
  if (path == "-") {
    file_ = Descriptor(::dup(STDIN_FILENO));
    if (file_.get() < 0) throw_system_error("read", name_, errno);
  } else {
    file_ = open_regular(path, bytes);
  }
  std::string begin;  // a pipe may give its first bytes one by one
  while (begin.size() < kZstd.size() && refill()) begin.append(input_.begin(), input_.end());
  std::copy(begin.begin(), begin.end(), buffer_.begin());
  input_ = std::span<const char>(buffer_).first(begin.size());
  if (begin.starts_with(kGzip)) {
    packing_ = "gzip";
    unpacker_ = std::make_unique<Gunzip>();
  } else if (begin.starts_with(kZstd)) {
    packing_ = "zstd";
    unpacker_ = std::make_unique<Unzstd>();
  }
}

SourceBytes::~SourceBytes() = default;

// Reads the next part of the file into the buffer; false at its end.
bool SourceBytes::refill() {
  if (ended_) return false;
  wait_for_data(file_, is_stopped_);
  ssize_t count = 0;
  do {
    count = ::read(file_.get(), buffer_.data(), kBufferBytes);
  } while (count < 0 && errno == EINTR);
  if (count < 0) throw_system_error("read", name_, errno);
  ended_ = count == 0;
  input_ = std::span<const char>(buffer_).first(static_cast<size_t>(count));
  stored_bytes_ += static_cast<uint64_t>(count);
  sha256_.update(std::string_view(input_.data(), input_.size()));
  return !ended_;
}

size_t SourceBytes::read(std::span<char> out) {
  if (unpacker_) return unpack(out);
  if (input_.empty() && !refill()) return 0;
  const size_t count = std::min(out.size(), input_.size());
  std::copy_n(input_.begin(), count, out.begin());
  input_ = input_.subspan(count);
  return count;
}

size_t SourceBytes::unpack(std::span<char> out) {
  const std::string what = fmt::format("whole {} data", packing_);
  const std::string hint =
      fmt::format("test it with {} -t, and copy or download it again", packing_);
  for (;;) {
    const bool is_end = input_.empty() && !refill();
    if (is_end && unpacker_->may_end()) return 0;
    size_t count = 0;
    try {
      count = unpacker_->step(input_, out);  // what it still holds comes without any input
    } catch (const Damaged& damaged) {
      throw expected(what, damaged.what,
                     fmt::format("in {}, at byte {}", name_, stored_bytes_ - input_.size()), hint);
    }
    if (count > 0) return count;
    if (!is_end) continue;
    if (unpacker_->may_end()) return 0;
    throw expected(what, "data that is cut short",
                   fmt::format("in {}, {} bytes long", name_, stored_bytes_), hint);
  }
}

std::string SourceBytes::sha256() { return sha256_.hex(); }

}  // namespace wavroute
