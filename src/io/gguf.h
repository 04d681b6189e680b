// GGUF, the model files of llama.cpp (versions 2 and 3, little-endian): typed metadata, then
// descriptions of tensors, then their bytes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "io/file.h"
#include "io/ggml_blocks.h"

namespace wavroute {

// A list's numbers in one kind each; a list of lists is refused.
using GgufValue = std::variant<bool, int64_t, uint64_t, double, std::string, std::vector<int64_t>,
                               std::vector<double>, std::vector<std::string>>;

struct GgufTensor {
  uint32_t type = 0;           // ggml's number: it may be one that isn't read
  std::vector<int64_t> shape;  // the outermost dimension first, as elsewhere; ggml's is reversed
  uint64_t offset = 0;         // in the file
  uint64_t bytes = 0;          // 0 where the type isn't read
};

// A file, mapped and checked: the constructor throws a UserError that names the file and the place
// for anything that the format doesn't allow.
class GgufFile {
 public:
  explicit GgufFile(const std::filesystem::path& path);

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] const std::map<std::string, GgufValue, std::less<>>& metadata() const {
    return metadata_;
  }
  [[nodiscard]] const std::map<std::string, GgufTensor, std::less<>>& tensors() const {
    return tensors_;
  }

  // A value of the metadata; nothing where there is none. UserError where it is of another kind.
  [[nodiscard]] std::optional<int64_t> integer(std::string_view key) const;
  [[nodiscard]] std::optional<double> number(std::string_view key) const;
  [[nodiscard]] std::optional<bool> flag(std::string_view key) const;
  [[nodiscard]] const std::string* text(std::string_view key) const;
  [[nodiscard]] const std::vector<std::string>* texts(std::string_view key) const;
  [[nodiscard]] const std::vector<int64_t>* integers(std::string_view key) const;
  [[nodiscard]] const std::vector<double>* numbers(std::string_view key) const;

  // Fills `out`, as many numbers as the tensor has. UserError for a type that isn't read.
  void read(const std::string& name, std::span<float> out) const;

 private:
  const GgufValue* find(std::string_view key) const;
  template <typename Kind>
  const Kind* of_kind(std::string_view key, const char* kind) const;

  std::filesystem::path path_;
  MappedFile file_;
  std::map<std::string, GgufValue, std::less<>> metadata_;
  std::map<std::string, GgufTensor, std::less<>> tensors_;
};

// A file to write, version 3.
class GgufWriter {
 public:
  void add(const std::string& key, const GgufValue& value);
  // 32 bits, as readers expect sizes and token ids.
  void add_u32(const std::string& key, uint32_t value);
  void add_f32(const std::string& key, float value);
  void add_f32s(const std::string& key, std::span<const float> values);
  void add_i32s(const std::string& key, std::span<const int32_t> values);
  // A tensor; `fill` makes its bytes when they are written.
  void add_tensor(const std::string& name, GgmlType type, std::vector<int64_t> shape,
                  std::function<std::vector<std::byte>()> fill);
  // Atomic, tensor by tensor.
  void write(const std::filesystem::path& path) const;

 private:
  struct Tensor {
    std::string name;
    GgmlType type;
    std::vector<int64_t> shape;
    std::function<std::vector<std::byte>()> fill;
  };
  void key(const std::string& name, uint32_t kind);

  std::string metadata_;
  uint64_t keys_ = 0;
  std::vector<Tensor> tensors_;
};

}  // namespace wavroute
