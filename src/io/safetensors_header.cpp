#include "io/safetensors_header.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>
#include <utility>

#include "base/printable.h"

namespace wavroute {
namespace {

struct DtypeRow {
  Dtype dtype;
  std::string_view name;
  size_t bytes;
};

constexpr std::array<DtypeRow, 13> kDtypes = {{{Dtype::kBool, "BOOL", 1},
                                               {Dtype::kU8, "U8", 1},
                                               {Dtype::kI8, "I8", 1},
                                               {Dtype::kI16, "I16", 2},
                                               {Dtype::kU16, "U16", 2},
                                               {Dtype::kF16, "F16", 2},
                                               {Dtype::kBF16, "BF16", 2},
                                               {Dtype::kI32, "I32", 4},
                                               {Dtype::kU32, "U32", 4},
                                               {Dtype::kF32, "F32", 4},
                                               {Dtype::kF64, "F64", 8},
                                               {Dtype::kI64, "I64", 8},
                                               {Dtype::kU64, "U64", 8}}};

// Receives the header's JSON piece by piece and accepts nothing but
//   {"__metadata__": {string: string}, NAME: {"dtype": string, "shape": [n...],
//    "data_offsets": [n, n]}}
// Nothing is stored that doesn't fit this form, so no header can cost more memory than its size,
// and no nesting is deep.
class HeaderParser : public nlohmann::json_sax<nlohmann::json> {
 public:
  SafetensorsHeader take() && { return std::move(header_); }

  bool start_object(size_t) override {
    switch (inside_) {
      case Inside::kStart:
        inside_ = Inside::kTop;
        return true;
      case Inside::kTensorStart:
        inside_ = Inside::kTensor;
        return true;
      case Inside::kMetadataStart:
        inside_ = Inside::kMetadata;
        return true;
      default:
        unexpected("an object");
    }
  }

  bool key(string_t& key) override {
    if (inside_ == Inside::kTop) {
      if (!names_.insert(key).second) fail(fmt::format("{} comes twice", printable(key)));
      current_ = {};
      current_.name = key;
      seen_.clear();
      inside_ = key == "__metadata__" ? Inside::kMetadataStart : Inside::kTensorStart;
    } else if (inside_ == Inside::kMetadata) {
      if (header_.metadata.contains(key)) {
        fail(fmt::format("metadata {} comes twice", printable(key)));
      }
      field_ = key;
    } else {
      if (key != "dtype" && key != "shape" && key != "data_offsets") {
        fail_tensor(
            fmt::format("expected dtype, shape and data_offsets, given {}", printable(key)));
      }
      if (!seen_.insert(key).second) fail_tensor(fmt::format("{} comes twice", key));
      field_ = key;
    }
    return true;
  }

  bool string(string_t& text) override {
    if (inside_ == Inside::kMetadata) {
      header_.metadata.emplace(field_, text);
      return true;
    }
    if (inside_ != Inside::kTensor || field_ != "dtype") unexpected("a string");
    const auto dtype = parse_dtype(text);
    if (!dtype) fail_tensor(fmt::format("expected a known dtype, given {}", printable(text)));
    current_.dtype = *dtype;
    return true;
  }

  bool start_array(size_t) override {
    if (inside_ != Inside::kTensor || field_ == "dtype") unexpected("a list");
    inside_ = Inside::kList;
    list_.clear();
    return true;
  }

  bool number_unsigned(uint64_t value) override {
    if (inside_ != Inside::kList) unexpected("a number");
    if (value > static_cast<uint64_t>(INT64_MAX)) unexpected("a number beyond 63 bits");
    list_.push_back(static_cast<int64_t>(value));
    return true;
  }

  bool end_array() override {
    inside_ = Inside::kTensor;
    if (field_ == "shape") {
      current_.shape = list_;
    } else {
      if (list_.size() != 2) {
        fail_tensor(fmt::format("expected 2 data_offsets, given {}", list_.size()));
      }
      current_.begin = static_cast<uint64_t>(list_[0]);
      current_.end = static_cast<uint64_t>(list_[1]);
    }
    return true;
  }

  bool end_object() override {
    if (inside_ == Inside::kTensor) {
      for (const char* field : {"dtype", "shape", "data_offsets"}) {
        if (!seen_.contains(field)) fail_tensor(fmt::format("expected {}, given none", field));
      }
      header_.entries.push_back(std::move(current_));
    }
    inside_ = inside_ == Inside::kTop ? Inside::kEnd : Inside::kTop;
    return true;
  }

  bool number_integer(int64_t) override { unexpected("a negative number"); }
  bool number_float(double, const string_t&) override { unexpected("a number that is no integer"); }
  bool boolean(bool) override { unexpected("a boolean"); }
  bool null() override { unexpected("null"); }
  bool binary(binary_t&) override { unexpected("binary data"); }
  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    fail(fmt::format("expected JSON, given none at its byte {}", position));
  }

 private:
  enum class Inside { kStart, kTop, kTensorStart, kTensor, kList, kMetadataStart, kMetadata, kEnd };

  [[noreturn]] static void fail(const std::string& what) { throw HeaderError("header: " + what); }

  [[noreturn]] void fail_tensor(const std::string& what) const {
    throw HeaderError(fmt::format("tensor {}: {}", printable(current_.name), what));
  }

  [[noreturn]] void unexpected(std::string_view found) const {
    switch (inside_) {
      case Inside::kTensorStart:
        fail_tensor(fmt::format("expected an object, given {}", found));
      case Inside::kMetadataStart:
        fail(fmt::format("expected an object under __metadata__, given {}", found));
      case Inside::kMetadata:
        fail(fmt::format("expected a string as metadata {}, given {}", printable(field_), found));
      case Inside::kTensor:
        fail_tensor(fmt::format("expected {} as {}, given {}",
                                field_ == "dtype" ? "a string" : "a list", field_, found));
      case Inside::kList:
        fail_tensor(fmt::format("expected integers from 0 in {}, given {}", field_, found));
      default:
        fail(fmt::format("expected an object, given {}", found));
    }
  }

  SafetensorsHeader header_;
  std::set<std::string> names_;
  Inside inside_ = Inside::kStart;
  HeaderEntry current_;         // the tensor being read
  std::set<std::string> seen_;  // its fields so far
  std::string field_;           // the field or metadata key whose value comes next
  std::vector<int64_t> list_;
};

[[noreturn]] void fail_at(const HeaderEntry& entry, const std::string& what) {
  throw HeaderError(fmt::format("tensor {}: {}", printable(entry.name), what));
}

// The tensors must cover the data exactly: no hole, no overlap, nothing beyond the end.
void check_layout(const std::vector<HeaderEntry>& entries, uint64_t data_bytes) {
  uint64_t position = 0;
  for (const HeaderEntry& entry : entries) {
    if (entry.end < entry.begin) {
      fail_at(entry, fmt::format("data_offsets {} to {} run backwards", entry.begin, entry.end));
    }
    if (entry.end > data_bytes) {
      fail_at(entry,
              fmt::format("expected its data to end by byte {}, given {}: the file may be cut "
                          "short",
                          data_bytes, entry.end));
    }
    if (entry.begin != position) {
      fail_at(entry,
              fmt::format("expected its data at byte {}, given {}: {}", position, entry.begin,
                          entry.begin < position ? "it overlaps another tensor"
                                                 : "there is a hole before it"));
    }
    const auto expected = tensor_bytes(entry.dtype, entry.shape);
    if (!expected) fail_at(entry, "the size of its shape overflows 64 bits");
    if (*expected != entry.end - entry.begin) {
      fail_at(entry, fmt::format("expected {} bytes for {} [{}], given {}", *expected,
                                 dtype_name(entry.dtype), fmt::join(entry.shape, ","),
                                 entry.end - entry.begin));
    }
    position = entry.end;
  }
  if (position != data_bytes) {
    throw HeaderError(
        fmt::format("expected {} bytes of tensors, given {} bytes of data", position, data_bytes));
  }
}

}  // namespace

std::string_view dtype_name(Dtype dtype) noexcept {
  return kDtypes.at(static_cast<size_t>(dtype)).name;
}

size_t dtype_size(Dtype dtype) noexcept { return kDtypes.at(static_cast<size_t>(dtype)).bytes; }

std::optional<Dtype> parse_dtype(std::string_view name) {
  const auto found = std::find_if(kDtypes.begin(), kDtypes.end(),
                                  [&](const DtypeRow& row) { return row.name == name; });
  if (found == kDtypes.end()) return std::nullopt;
  return found->dtype;
}

std::optional<uint64_t> tensor_bytes(Dtype dtype, std::span<const int64_t> shape) {
  uint64_t bytes = dtype_size(dtype);
  for (const int64_t dimension : shape) {
    if (dimension < 0 || __builtin_mul_overflow(bytes, static_cast<uint64_t>(dimension), &bytes)) {
      return std::nullopt;
    }
  }
  return bytes;
}

SafetensorsHeader parse_safetensors_header(std::string_view text, uint64_t data_bytes) {
  // The format wants '{' as the first byte; the parser takes a zero byte for the end of its input.
  if (!text.starts_with('{')) throw HeaderError("header: expected '{' as its first byte");
  if (text.find('\0') != std::string_view::npos) {
    throw HeaderError("header: expected JSON, given a zero byte");
  }
  HeaderParser parser;
  if (!nlohmann::json::sax_parse(text, &parser)) throw HeaderError("header: expected JSON");
  SafetensorsHeader header = std::move(parser).take();
  std::sort(header.entries.begin(), header.entries.end(),
            [](const HeaderEntry& a, const HeaderEntry& b) {
              return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
            });
  check_layout(header.entries, data_bytes);
  return header;
}

}  // namespace wavroute
