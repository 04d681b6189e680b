#include <array>
#include <bit>
#include <type_traits>

#include "io/gguf.h"
#include "io/gguf_kinds.h"

namespace wavroute {
namespace {

template <typename T>
void put(std::string& out, T value) {
  const auto bytes = std::bit_cast<std::array<char, sizeof value>>(value);
  out.append(bytes.data(), bytes.size());
}

void put_text(std::string& out, std::string_view text) {
  put<uint64_t>(out, text.size());
  out += text;
}

template <typename T>
void put_list(std::string& out, uint32_t kind, std::span<const T> items) {
  put<uint32_t>(out, kind);
  put<uint64_t>(out, items.size());
  for (const T& item : items) {
    if constexpr (std::is_same_v<T, std::string>) {
      put_text(out, item);
    } else {
      put(out, item);
    }
  }
}

}  // namespace

void GgufWriter::key(const std::string& name, uint32_t kind) {
  put_text(metadata_, name);
  put<uint32_t>(metadata_, kind);
  ++keys_;
}

void GgufWriter::add(const std::string& name, const GgufValue& value) {
  std::visit(
      [&]<typename T>(const T& item) {
        if constexpr (std::is_same_v<T, bool>) {
          key(name, kBool);
          put<uint8_t>(metadata_, item ? 1 : 0);
        } else if constexpr (std::is_same_v<T, std::string>) {
          key(name, kString);
          put_text(metadata_, item);
        } else if constexpr (std::is_arithmetic_v<T>) {
          key(name, std::is_same_v<T, double> ? kF64 : std::is_same_v<T, int64_t> ? kI64 : kU64);
          put(metadata_, item);
        } else {
          using Item = typename T::value_type;
          key(name, kArray);
          put_list<Item>(metadata_,
                         std::is_same_v<Item, std::string> ? kString
                         : std::is_same_v<Item, double>    ? kF64
                                                           : kI64,
                         item);
        }
      },
      value);
}

void GgufWriter::add_u32(const std::string& name, uint32_t value) {
  key(name, kU32);
  put(metadata_, value);
}

void GgufWriter::add_f32(const std::string& name, float value) {
  key(name, kF32);
  put(metadata_, value);
}

void GgufWriter::add_f32s(const std::string& name, std::span<const float> values) {
  key(name, kArray);
  put_list(metadata_, kF32, values);
}

void GgufWriter::add_i32s(const std::string& name, std::span<const int32_t> values) {
  key(name, kArray);
  put_list(metadata_, kI32, values);
}

void GgufWriter::add_tensor(const std::string& name, GgmlType type, std::vector<int64_t> shape,
                            std::function<std::vector<std::byte>()> fill) {
  tensors_.push_back({name, type, std::move(shape), std::move(fill)});
}

void GgufWriter::write(const std::filesystem::path& path) const {
  std::string head(kGgufMagic);
  put<uint32_t>(head, 3);
  put<uint64_t>(head, tensors_.size());
  put<uint64_t>(head, keys_);
  head += metadata_;
  const auto aligned = [](uint64_t bytes) {
    return (bytes + kGgufAlignment - 1) / kGgufAlignment * kGgufAlignment;
  };
  uint64_t offset = 0;
  for (const Tensor& tensor : tensors_) {
    put_text(head, tensor.name);
    put<uint32_t>(head, static_cast<uint32_t>(tensor.shape.size()));
    uint64_t numbers = 1;
    for (size_t i = tensor.shape.size(); i-- > 0;) {
      put<uint64_t>(head, static_cast<uint64_t>(tensor.shape[i]));
      numbers *= static_cast<uint64_t>(tensor.shape[i]);
    }
    put<uint32_t>(head, static_cast<uint32_t>(tensor.type));
    put<uint64_t>(head, offset);
    const GgmlLayout layout = layout_of(tensor.type);
    offset += aligned(numbers / static_cast<uint64_t>(layout.numbers) *
                      static_cast<uint64_t>(layout.bytes));
  }
  head.resize(aligned(head.size()), '\0');
  AtomicFile file(path);
  file.write(head);
  for (const Tensor& tensor : tensors_) {
    std::vector<std::byte> bytes = tensor.fill();
    bytes.resize(aligned(bytes.size()));
    file.write(bytes);
  }
  file.commit();
}

}  // namespace wavroute
