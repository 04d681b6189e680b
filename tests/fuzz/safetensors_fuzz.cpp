// Files of weights: the input is a whole file.
#include "fuzz.h"
#include "wavroute/safetensors.h"

using namespace wavroute;

WAVROUTE_FUZZ_TARGET(text) {
  const auto file = fuzz::scratch() / "model.safetensors";
  fuzz::put(file, text);
  fuzz::accepts([&] {
    const SafetensorsFile weights(file);
    size_t bytes = 0;
    unsigned sum = 0;
    for (const auto& [name, tensor] : weights.tensors()) {
      size_t expected = dtype_size(tensor.dtype);
      for (const int64_t size : tensor.shape) expected *= static_cast<size_t>(size);
      fuzz::require(tensor.bytes.size() == expected, "a tensor has the bytes of its shape");
      for (const std::byte byte : tensor.bytes) sum += static_cast<unsigned>(byte);
      bytes += tensor.bytes.size();
      fuzz::require(weights.find(name) == &tensor, "a tensor is found by its name");
    }
    fuzz::require(bytes + 8 <= text.size() && sum <= 255 * bytes, "no byte belongs to two tensors");
  });
}
