#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "base/printable.h"
#include "io/file.h"
#include "io/safetensors_header.h"
#include "wavroute/error.h"
#include "wavroute/safetensors.h"

namespace wavroute {
namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kLongestHeader = 100'000'000;  // as in the reference implementation

uint64_t little_endian(std::span<const std::byte> bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) {
    value |= std::to_integer<uint64_t>(bytes[i]) << (8 * i);
  }
  return value;
}

// The length of the header in a file of these bytes.
uint64_t header_length(std::span<const std::byte> bytes) {
  if (bytes.size() < kLengthBytes) {
    throw HeaderError(fmt::format("expected at least 8 bytes, given {}", bytes.size()));
  }
  const uint64_t length = little_endian(bytes);
  if (length > kLongestHeader) {
    throw HeaderError(fmt::format("expected a header of at most {} bytes, given a length of {}",
                                  kLongestHeader, length));
  }
  if (length > bytes.size() - kLengthBytes) {
    throw HeaderError(fmt::format("expected a header of {} bytes, given a file of {} bytes", length,
                                  bytes.size()));
  }
  return length;
}

std::string describe(Dtype dtype, std::span<const int64_t> shape) {
  return fmt::format("{} [{}]", dtype_name(dtype), fmt::join(shape, ","));
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : path_(path), file_(std::make_unique<MappedFile>(path)) {
  const auto bytes = file_->bytes();
  try {
    const uint64_t length = header_length(bytes);
    const auto data = bytes.subspan(kLengthBytes + length);
    SafetensorsHeader header =
        parse_safetensors_header(file_->text().substr(kLengthBytes, length), data.size());
    for (HeaderEntry& entry : header.entries) {
      tensors_.emplace(std::move(entry.name),
                       TensorInfo{entry.dtype, std::move(entry.shape),
                                  data.subspan(entry.begin, entry.end - entry.begin)});
    }
    metadata_ = std::move(header.metadata);
  } catch (const HeaderError& error) {
    throw UserError(fmt::format("{}, in {}", error.what(), path_.string()),
                    "the file is not a complete safetensors file: copy or save it again");
  }
}

SafetensorsFile::SafetensorsFile(SafetensorsFile&&) noexcept = default;
SafetensorsFile& SafetensorsFile::operator=(SafetensorsFile&&) noexcept = default;
SafetensorsFile::~SafetensorsFile() = default;

std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> names;
  names.reserve(tensors_.size());
  for (const auto& [name, tensor] : tensors_) names.push_back(name);
  return names;
}

const TensorInfo* SafetensorsFile::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

const TensorInfo& SafetensorsFile::require(std::string_view name, Dtype dtype,
                                           std::span<const int64_t> shape) const {
  const TensorInfo* tensor = find(name);
  if (tensor == nullptr) {
    throw expected(fmt::format("tensor {} of {}", printable(name), describe(dtype, shape)),
                   "none of that name", fmt::format("in {}", path_.string()),
                   fmt::format("the file holds {} tensors; is it a model of this configuration?",
                               tensors_.size()));
  }
  if (tensor->dtype != dtype || !std::ranges::equal(tensor->shape, shape)) {
    throw expected(fmt::format("tensor {} of {}", printable(name), describe(dtype, shape)),
                   describe(tensor->dtype, tensor->shape), fmt::format("in {}", path_.string()),
                   tensor->dtype != dtype ? "save the tensor in the expected type"
                                          : "is it a model of this configuration?");
  }
  return *tensor;
}

}  // namespace wavroute
