// GGUF files: the reader of the format, and of the Llama and the tokenizer in it.
#include "io/gguf.h"

#include "formats/foreign_model.h"
#include "fuzz.h"

using namespace wavroute;

WAVROUTE_FUZZ_TARGET(text) {
  const auto path = fuzz::scratch() / "model.gguf";
  fuzz::put(path, text);
  fuzz::accepts([&] {
    const GgufFile file(path);
    for (const auto& [name, tensor] : file.tensors()) {
      fuzz::require(tensor.offset + tensor.bytes <= text.size(), "a tensor lies within the file");
      uint64_t numbers = 1;
      for (const int64_t size : tensor.shape) numbers *= static_cast<uint64_t>(size);
      if (tensor.bytes == 0) continue;  // of a type that isn't read
      std::vector<float> values(numbers);
      file.read(name, values);
    }
  });
  fuzz::accepts([&] {
    const ForeignModel model = open_gguf_model(path);
    for (const ForeignTensor& tensor : model.tensors) {
      size_t numbers = 1;
      for (const int64_t size : tensor.shape) numbers *= static_cast<size_t>(size);
      std::vector<float> values(numbers);
      tensor.read(values);
    }
  });
}
