#include "io/gguf.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <set>
#include <type_traits>

#include "base/printable.h"
#include "base/utf8.h"
#include "io/gguf_kinds.h"
#include "io/mapped_pages.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

constexpr int64_t kMostAlignment = int64_t{1} << 20;
constexpr uint64_t kMostDimensions = 4, kMostKeyBytes = 65535;
// More than any vocabulary; a list is copied, its text is not bounded by this but by the file.
constexpr uint64_t kMostItems = uint64_t{1} << 24;
// A string takes this many bytes of memory besides its text.
constexpr uint64_t kMostTensors = uint64_t{1} << 20;

uint64_t kind_bytes(uint32_t kind) {
  constexpr uint64_t kBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};
  return kind <= kF64 ? kBytes[kind] : 0;
}

// Reads on through the file; whatever it says, nothing beyond the end is touched.
class Cursor {
 public:
  Cursor(std::span<const std::byte> bytes, const std::string& file) : bytes_(bytes), file_(file) {}

  [[noreturn]] void fail(const std::string& what, const Quoted& given) const {
    throw expected(what, given, fmt::format("at byte {} of {}", at_, file_),
                   "the file is damaged or no GGUF file; download it again");
  }

  [[nodiscard]] uint64_t at() const { return at_; }
  [[nodiscard]] uint64_t left() const { return bytes_.size() - at_; }

  template <typename T>
  T take() {
    T value;
    if (left() < sizeof value) fail(fmt::format("{} more bytes", sizeof value), left());
    std::memcpy(&value, bytes_.data() + at_, sizeof value);  // little-endian, as this machine
    at_ += sizeof value;
    return value;
  }

  std::string take_text(uint64_t most) {
    const auto length = take<uint64_t>();
    if (length > left() || length > most) {
      fail(fmt::format("a text of at most {} bytes", std::min(most, left())), length);
    }
    std::string text(reinterpret_cast<const char*>(bytes_.data() + at_), length);
    at_ += length;
    return text;
  }

  // How many items of `bytes` each come.
  uint64_t take_count(uint64_t most, uint64_t bytes) {
    const auto count = take<uint64_t>();
    if (count > most || count > left() / bytes) {
      fail(fmt::format("at most {} items", std::min(most, left() / bytes)), count);
    }
    return count;
  }

 private:
  std::span<const std::byte> bytes_;
  const std::string& file_;
  uint64_t at_ = 0;
};

GgufValue take_scalar(Cursor& in, uint32_t kind) {
  switch (kind) {
    case kU8:
      return int64_t{in.take<uint8_t>()};
    case kI8:
      return int64_t{in.take<int8_t>()};
    case kU16:
      return int64_t{in.take<uint16_t>()};
    case kI16:
      return int64_t{in.take<int16_t>()};
    case kU32:
      return int64_t{in.take<uint32_t>()};
    case kI32:
      return int64_t{in.take<int32_t>()};
    case kI64:
      return in.take<int64_t>();
    case kU64:
      return in.take<uint64_t>();
    case kF32:
      return double{in.take<float>()};
    case kF64:
      return in.take<double>();
    case kBool:
      return in.take<uint8_t>() != 0;
    case kString:
      return in.take_text(UINT64_MAX);
    default:
      in.fail("a kind of value from 0 to 12", kind);
  }
}

GgufValue take_list(Cursor& in) {
  const auto kind = in.take<uint32_t>();
  if (kind == kArray) in.fail("a list of plain values", "a list of lists");
  if (kind_bytes(kind) == 0) in.fail("a kind of value from 0 to 12", kind);
  const uint64_t count = in.take_count(kMostItems, kind_bytes(kind));
  if (kind == kString) {
    std::vector<std::string> texts;
    texts.reserve(count);
    for (uint64_t i = 0; i < count; ++i) texts.push_back(in.take_text(UINT64_MAX));
    return texts;
  }
  if (kind == kF32 || kind == kF64) {
    std::vector<double> numbers;
    numbers.reserve(count);
    for (uint64_t i = 0; i < count; ++i) numbers.push_back(std::get<double>(take_scalar(in, kind)));
    return numbers;
  }
  std::vector<int64_t> integers;
  integers.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    const GgufValue item = take_scalar(in, kind);
    if (const auto* flag = std::get_if<bool>(&item)) {
      integers.push_back(*flag ? 1 : 0);
    } else if (const auto* large = std::get_if<uint64_t>(&item)) {
      if (*large > INT64_MAX) in.fail("integers below 2^63", *large);
      integers.push_back(static_cast<int64_t>(*large));
    } else {
      integers.push_back(std::get<int64_t>(item));
    }
  }
  return integers;
}

GgufTensor take_tensor(Cursor& in) {
  GgufTensor tensor;
  const auto dimensions = in.take<uint32_t>();
  if (dimensions < 1 || dimensions > kMostDimensions) in.fail("1 to 4 dimensions", dimensions);
  uint64_t numbers = 1;
  for (uint32_t i = 0; i < dimensions; ++i) {
    const auto size = in.take<uint64_t>();
    constexpr uint64_t kMost = uint64_t{1} << 40;
    if (size < 1 || size > kMost || numbers > kMost / size) {
      in.fail("a tensor of 1 to 2^40 numbers", size);
    }
    numbers *= size;
    tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(size));
  }
  tensor.type = in.take<uint32_t>();
  tensor.offset = in.take<uint64_t>();
  if (const auto type = ggml_type(tensor.type)) {
    const GgmlLayout layout = layout_of(*type);
    const int64_t row = tensor.shape.back();
    if (row % layout.numbers != 0) {
      in.fail(fmt::format("rows of whole blocks of {} numbers", layout.numbers), row);
    }
    tensor.bytes =
        numbers / static_cast<uint64_t>(layout.numbers) * static_cast<uint64_t>(layout.bytes);
  }
  return tensor;
}

}  // namespace

GgufFile::GgufFile(const std::filesystem::path& path) : path_(path), file_(path) {
  static_assert(std::endian::native == std::endian::little);
  const std::string name = printable(path.string());
  Cursor in(file_.bytes(), name);
  if (!file_.text().starts_with(kGgufMagic)) in.fail("a GGUF file", "other bytes at its start");
  static_cast<void>(in.take<uint32_t>());
  const auto version = in.take<uint32_t>();
  if (version != 2 && version != 3) {
    throw expected("version 2 or 3 of GGUF, little-endian", version, fmt::format("in {}", name),
                   "convert the model again with a newer llama.cpp");
  }
  const auto tensors = in.take_count(kMostTensors, 32);
  const auto keys = in.take_count(kMostTensors, 13);
  for (uint64_t i = 0; i < keys; ++i) {
    std::string key = in.take_text(kMostKeyBytes);
    const auto kind = in.take<uint32_t>();
    GgufValue value = kind == kArray ? take_list(in) : take_scalar(in, kind);
    const std::string shown = printable(key);
    if (!metadata_.emplace(std::move(key), std::move(value)).second) {
      in.fail("each key once", shown + " twice");
    }
  }
  for (uint64_t i = 0; i < tensors; ++i) {
    std::string tensor = in.take_text(kMostKeyBytes);
    const std::string shown = printable(tensor);
    if (!tensors_.emplace(std::move(tensor), take_tensor(in)).second) {
      in.fail("each tensor once", shown + " twice");
    }
  }
  const int64_t alignment = integer("general.alignment").value_or(kGgufAlignment);
  if (alignment < 1 || alignment > kMostAlignment ||
      !std::has_single_bit(static_cast<uint64_t>(alignment))) {
    in.fail("a power of two as general.alignment", alignment);
  }
  const auto unit = static_cast<uint64_t>(alignment);
  const uint64_t data = (in.at() + unit - 1) / unit * unit;
  for (auto& [tensor, info] : tensors_) {
    const uint64_t size = file_.bytes().size();
    if (data > size || info.offset > size - data || info.bytes > size - data - info.offset) {
      throw expected(fmt::format("{} bytes of tensor {}", info.bytes, printable(tensor)),
                     "the end of the file", fmt::format("in {}", name),
                     "the file is cut short; download it again");
    }
    info.offset += data;
  }
}

const GgufValue* GgufFile::find(std::string_view key) const {
  const auto found = metadata_.find(key);
  return found == metadata_.end() ? nullptr : &found->second;
}

template <typename Kind>
const Kind* GgufFile::of_kind(std::string_view key, const char* kind) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return nullptr;
  if (const auto* found = std::get_if<Kind>(value)) return found;
  throw expected(fmt::format("{} as {}", kind, key), "a value of another kind",
                 fmt::format("in {}", printable(path_.string())));
}

std::optional<int64_t> GgufFile::integer(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* large = std::get_if<uint64_t>(value); large != nullptr && *large <= INT64_MAX) {
    return static_cast<int64_t>(*large);
  }
  return *of_kind<int64_t>(key, "an integer");
}

std::optional<double> GgufFile::number(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* whole = std::get_if<int64_t>(value)) return static_cast<double>(*whole);
  return *of_kind<double>(key, "a number");
}

std::optional<bool> GgufFile::flag(std::string_view key) const {
  const auto* found = of_kind<bool>(key, "true or false");
  return found == nullptr ? std::nullopt : std::optional(*found);
}

const std::string* GgufFile::text(std::string_view key) const {
  const auto* found = of_kind<std::string>(key, "a text");
  if (found != nullptr && !is_utf8(*found)) {
    throw expected(fmt::format("UTF-8 as {}", key), "other bytes",
                   fmt::format("in {}", printable(path_.string())));
  }
  return found;
}

const std::vector<std::string>* GgufFile::texts(std::string_view key) const {
  return of_kind<std::vector<std::string>>(key, "a list of texts");
}
const std::vector<int64_t>* GgufFile::integers(std::string_view key) const {
  return of_kind<std::vector<int64_t>>(key, "a list of integers");
}
const std::vector<double>* GgufFile::numbers(std::string_view key) const {
  return of_kind<std::vector<double>>(key, "a list of numbers");
}

void GgufFile::read(const std::string& name, std::span<float> out) const {
  const GgufTensor& tensor = tensors_.at(name);
  const auto type = ggml_type(tensor.type);
  if (!type) {
    throw expected(
        "tensors of type F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K or Q6_K",
        fmt::format("{} of type {}", printable(name), ggml_type_name(tensor.type)),
        fmt::format("in {}", printable(path_.string())), "take another quantisation of this model");
  }
  const auto bytes = file_.bytes().subspan(tensor.offset, tensor.bytes);
  dequantize(*type, bytes, out);
  release_pages(bytes);
}

}  // namespace wavroute
