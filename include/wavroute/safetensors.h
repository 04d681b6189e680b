// The safetensors format: an 8-byte little-endian header length, a JSON header padded with
// spaces, then the tensors' bytes without gaps. Torch-free.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace wavroute {

class MappedFile;

// The element types that a file may hold. The order is the one that files are written in.
enum class Dtype { kBool, kU8, kI8, kI16, kU16, kF16, kBF16, kI32, kU32, kF32, kF64, kI64, kU64 };

// The format's name of a type: "F32", "BF16", ...
[[nodiscard]] std::string_view dtype_name(Dtype dtype) noexcept;
// Bytes per element.
[[nodiscard]] size_t dtype_size(Dtype dtype) noexcept;

// A tensor in a file that is open. The bytes are row-major and little-endian, and may be at any
// address: copy them out (memcpy), don't cast.
struct TensorInfo {
  Dtype dtype = Dtype::kF32;
  std::vector<int64_t> shape;  // empty for a scalar
  std::span<const std::byte> bytes;
};

// A file, mapped and checked. The constructor throws a UserError that names the file, the tensor
// and what is wrong with it, for anything the format does not allow; until then nothing in the file
// is trusted. Spans live as long as this object.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);
  SafetensorsFile(SafetensorsFile&&) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&&) noexcept;
  ~SafetensorsFile();

  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  // Sorted by name.
  [[nodiscard]] std::vector<std::string> names() const;
  [[nodiscard]] const std::map<std::string, TensorInfo, std::less<>>& tensors() const noexcept {
    return tensors_;
  }
  [[nodiscard]] const std::map<std::string, std::string>& metadata() const noexcept {
    return metadata_;
  }
  // Null where the file has no such tensor.
  [[nodiscard]] const TensorInfo* find(std::string_view name) const;
  // The tensor of this name, type and shape; else a UserError that says which of them is wrong.
  [[nodiscard]] const TensorInfo& require(std::string_view name, Dtype dtype,
                                          std::span<const int64_t> shape) const;

 private:
  std::filesystem::path path_;
  std::unique_ptr<MappedFile> file_;
  std::map<std::string, TensorInfo, std::less<>> tensors_;
  std::map<std::string, std::string> metadata_;
};

// A tensor to write; the bytes must stay valid until write_safetensors returns.
struct NamedTensor {
  std::string name;
  Dtype dtype = Dtype::kF32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
};

// What identifies the content of a file.
struct FileDigest {
  uint64_t bytes = 0;
  std::string sha256;  // 64 lower-case hexadecimal digits
};

// Writes a file atomically (old content or new, never a part) and returns its digest, computed
// while writing. Tensors are ordered by type (wide ones first, so that all are aligned), then by
// name: the same tensors give the same bytes, whatever order they come in. Errors: Failure for a
// tensor whose bytes don't match its shape or a name that comes twice, a full disk, and so on.
FileDigest write_safetensors(const std::filesystem::path& path, std::vector<NamedTensor> tensors,
                             const std::map<std::string, std::string>& metadata = {});

// A tensor whose bytes are made when they are written: fill gets as many as type and shape say.
struct LazyTensor {
  std::string name;
  Dtype dtype = Dtype::kF32;
  std::vector<int64_t> shape;
  std::function<void(std::span<std::byte>)> fill;
};

// The same with one tensor in memory at a time.
FileDigest write_safetensors(const std::filesystem::path& path, std::vector<LazyTensor> tensors,
                             const std::map<std::string, std::string>& metadata = {});

}  // namespace wavroute
