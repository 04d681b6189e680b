// The default corpus, "torch-source": the Python source text of the installed torch wheel.
//
// It is made of the .py files under a fixed list of folders, without version files (which differ
// between builds of one release), without files that are empty or not UTF-8, and without exact
// duplicates (the first path is kept). The files are in the bytewise order of their paths
// ("torch/nn/functional.py"), each after a line that says "# file: PATH", so that a model can see
// where one ends. A file whose path's FNV-1a hash is divisible by 20 belongs to the validation
// split, every other one to the training split.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace wavroute {

struct TorchSource {
  std::string train;
  std::string valid;
  int64_t train_files = 0;
  int64_t valid_files = 0;
};

// The folder of the torch package: $WAVROUTE_TORCH_ROOT, else that of the libtorch that this
// process runs on. UserError where there is neither.
[[nodiscard]] std::filesystem::path find_torch_root();

// Reads the corpus below `torch_root`. max_bytes > 0 limits the training split: files are taken in
// the order of a fixed hash of their paths, so that a slice is as varied as the whole, and the last
// one is cut to fit; then they are put in the order of their paths. The validation split is never
// cut.
[[nodiscard]] TorchSource read_torch_source(const std::filesystem::path& torch_root,
                                            int64_t max_bytes);

}  // namespace wavroute
