#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <tuple>

#include "base/printable.h"
#include "io/file.h"
#include "io/safetensors_header.h"
#include "wavroute/error.h"
#include "wavroute/safetensors.h"

namespace wavroute {
namespace {

constexpr size_t kHeaderAlignment = 8;

void refuse_size(const NamedTensor& tensor, const std::filesystem::path& path) {
  throw Failure(
      expectation(fmt::format("the bytes of {} [{}] for tensor {}", dtype_name(tensor.dtype),
                              fmt::join(tensor.shape, ","), printable(tensor.name)),
                  tensor.bytes.size(), "writing " + path.string()));
}

template <typename Tensor>
void check_names(const std::vector<Tensor>& tensors, const std::filesystem::path& path) {
  std::vector<std::string_view> names = {"__metadata__"};
  for (const Tensor& tensor : tensors) names.push_back(tensor.name);
  std::ranges::sort(names);
  if (const auto twice = std::ranges::adjacent_find(names); twice != names.end()) {
    throw Failure(expectation("each tensor name once", printable(*twice) + " twice",
                              "writing " + path.string()));
  }
}

template <typename Tensor>
void sort_for_file(std::vector<Tensor>& tensors) {
  std::ranges::sort(tensors, [](const Tensor& a, const Tensor& b) {
    return std::tie(b.dtype, a.name) < std::tie(a.dtype, b.name);
  });
}

uint64_t size_of(const NamedTensor& tensor) { return tensor.bytes.size(); }
uint64_t size_of(const LazyTensor& tensor) {
  return tensor_bytes(tensor.dtype, tensor.shape).value();
}

// The length and the JSON, padded with spaces so that the data starts at a multiple of 8.
template <typename Tensor>
std::string header_of(const std::vector<Tensor>& tensors,
                      const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t position = 0;
  for (const Tensor& tensor : tensors) {
    const uint64_t end = position + size_of(tensor);
    // Emplaced directly: assigning through operator[] would search all names so far.
    header.get_ref<nlohmann::ordered_json::object_t&>().emplace_back(
        tensor.name,
        nlohmann::ordered_json{{"dtype", dtype_name(tensor.dtype)},
                               {"shape", tensor.shape},
                               {"data_offsets", std::array<uint64_t, 2>{position, end}}});
    position = end;
  }
  std::string json;
  try {
    json = header.dump();
  } catch (const nlohmann::json::exception&) {
    throw Failure(
        expectation("names and metadata in UTF-8", "other bytes", "for a safetensors file"));
  }
  json.resize((json.size() + kHeaderAlignment - 1) / kHeaderAlignment * kHeaderAlignment, ' ');
  std::string length;
  for (size_t i = 0; i < 8; ++i) length += static_cast<char>(json.size() >> (8 * i) & 0xff);
  return length + json;
}

// bytes_of(tensor): a span, valid until the next call.
template <typename Tensor, typename BytesOf>
FileDigest write(const std::filesystem::path& path, std::vector<Tensor>& tensors,
                 const std::map<std::string, std::string>& metadata, const BytesOf& bytes_of) {
  check_names(tensors, path);
  sort_for_file(tensors);
  AtomicFile file(path);
  Sha256 sha;
  FileDigest digest;
  const auto put = [&](std::span<const std::byte> bytes) {
    file.write(bytes);
    sha.update(bytes);
    digest.bytes += bytes.size();
  };
  const std::string header = header_of(tensors, metadata);
  put(std::as_bytes(std::span(header)));
  for (const Tensor& tensor : tensors) put(bytes_of(tensor));
  file.commit();
  digest.sha256 = sha.hex();
  return digest;
}

}  // namespace

FileDigest write_safetensors(const std::filesystem::path& path, std::vector<NamedTensor> tensors,
                             const std::map<std::string, std::string>& metadata) {
  for (const NamedTensor& tensor : tensors) {
    if (tensor_bytes(tensor.dtype, tensor.shape) != tensor.bytes.size()) refuse_size(tensor, path);
  }
  return write(path, tensors, metadata, [](const NamedTensor& tensor) { return tensor.bytes; });
}

FileDigest write_safetensors(const std::filesystem::path& path, std::vector<LazyTensor> tensors,
                             const std::map<std::string, std::string>& metadata) {
  std::vector<std::byte> bytes;
  return write(path, tensors, metadata,
               [&](const LazyTensor& tensor) -> std::span<const std::byte> {
                 bytes.resize(size_of(tensor));
                 tensor.fill(bytes);
                 return bytes;
               });
}

}  // namespace wavroute
