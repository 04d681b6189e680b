// Checkpoints of llama2.c and its tokenizers: the first byte says which of them it is.
#include "formats/foreign_model.h"
#include "formats/tokenizer_files.h"
#include "fuzz.h"

using namespace wavroute;

WAVROUTE_FUZZ_TARGET(text) {
  if (text.empty()) return;
  const auto path = fuzz::scratch() / "model.bin";
  fuzz::put(path, text.substr(1));
  if (text[0] == 0) {
    fuzz::accepts([&] { (void)read_llama2c_tokenizer(path, 6); });
    return;
  }
  fuzz::accepts([&] {
    const ForeignModel model = open_llama2c(path);
    for (const ForeignTensor& tensor : model.tensors) {
      size_t numbers = 1;
      for (const int64_t size : tensor.shape) numbers *= static_cast<size_t>(size);
      fuzz::require(4 * numbers <= text.size(), "a tensor lies within the file");
      std::vector<float> values(numbers);
      tensor.read(values);
    }
  });
}
