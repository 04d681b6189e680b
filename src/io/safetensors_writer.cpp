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

void check(const std::vector<NamedTensor>& tensors, const std::filesystem::path& path) {
  for (size_t i = 0; i < tensors.size(); ++i) {
    const NamedTensor& tensor = tensors[i];
    const auto expected = tensor_bytes(tensor.dtype, tensor.shape);
    if (!expected || *expected != tensor.bytes.size()) {
      throw Failure(
          expectation(fmt::format("the bytes of {} [{}] for tensor {}", dtype_name(tensor.dtype),
                                  fmt::join(tensor.shape, ","), printable(tensor.name)),
                      tensor.bytes.size(), "writing " + path.string()));
    }
  }
  std::vector<std::string_view> names = {"__metadata__"};
  for (const NamedTensor& tensor : tensors) names.push_back(tensor.name);
  std::ranges::sort(names);
  if (const auto twice = std::ranges::adjacent_find(names); twice != names.end()) {
    throw Failure(expectation("each tensor name once", printable(*twice) + " twice",
                              "writing " + path.string()));
  }
}

// The length and the JSON, padded with spaces so that the data starts at a multiple of 8.
std::string header_of(const std::vector<NamedTensor>& tensors,
                      const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t position = 0;
  for (const NamedTensor& tensor : tensors) {
    const uint64_t end = position + tensor.bytes.size();
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

}  // namespace

FileDigest write_safetensors(const std::filesystem::path& path, std::vector<NamedTensor> tensors,
                             const std::map<std::string, std::string>& metadata) {
  check(tensors, path);
  std::ranges::sort(tensors, [](const NamedTensor& a, const NamedTensor& b) {
    return std::tie(b.dtype, a.name) < std::tie(a.dtype, b.name);
  });
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
  for (const NamedTensor& tensor : tensors) put(tensor.bytes);
  file.commit();
  digest.sha256 = sha.hex();
  return digest;
}

}  // namespace wavroute
