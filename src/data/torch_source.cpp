#include "data/torch_source.h"

#include <fmt/format.h>
#include <link.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "base/philox.h"
#include "base/utf8.h"
#include "io/file.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;

// Fixed: another list is another corpus. Folders that a release lacks are skipped.
constexpr std::array<std::string_view, 17> kFolders = {
    "_dynamo",       "_functorch", "_inductor", "autograd", "cuda",   "distributed",
    "distributions", "export",     "fx",        "jit",      "linalg", "nn",
    "onnx",          "optim",      "profiler",  "sparse",   "utils"};
constexpr uint64_t kValidShare = 20;  // one file in this many is a validation file

struct SourceFile {
  std::string path;  // "torch/nn/functional.py"
  std::string text;  // with the line that names the file, and a line end at its end
};

bool is_version_file(const fs::path& path) {
  const std::string stem = path.stem().string();
  return stem == "version" || stem.ends_with("_version");
}

std::vector<std::string> list_paths(const fs::path& torch_root) {
  std::vector<std::string> paths;
  for (const std::string_view folder : kFolders) {
    std::error_code missing;
    for (fs::recursive_directory_iterator entry(torch_root / folder, missing), end;
         !missing && entry != end; entry.increment(missing)) {
      const fs::path& path = entry->path();
      if (path.extension() != ".py" || !entry->is_regular_file() || is_version_file(path)) continue;
      paths.push_back((fs::path("torch") / path.lexically_relative(torch_root)).generic_string());
    }
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

std::vector<SourceFile> read_files(const fs::path& torch_root) {
  std::vector<SourceFile> files;
  std::set<std::string> digests;
  for (std::string& path : list_paths(torch_root)) {
    const std::string text = read_file(torch_root / fs::path(path).lexically_relative("torch"));
    if (text.empty() || !is_utf8(text) || !digests.insert(sha256_hex(text)).second) continue;
    std::string marked =
        fmt::format("# file: {}\n{}{}", path, text, text.back() == '\n' ? "" : "\n");
    files.push_back({std::move(path), std::move(marked)});
  }
  return files;
}

// Cuts `files`, in the order of their paths, to max_bytes in total.
void limit(std::vector<SourceFile>& files, int64_t max_bytes) {
  std::vector<std::pair<std::array<uint32_t, 4>, size_t>> order;
  for (size_t i = 0; i < files.size(); ++i) {
    order.emplace_back(Philox(0, "torch-source", files[i].path).bits(0), i);
  }
  std::sort(order.begin(), order.end());
  auto room = static_cast<size_t>(max_bytes);
  for (const auto& [hash, i] : order) {
    std::string& text = files[i].text;
    const bool cut = text.size() > room;
    if (cut) text.resize(utf8_boundary(text, room));
    room = cut ? 0 : room - text.size();
  }
  std::erase_if(files, [](const SourceFile& file) { return file.text.empty(); });
}

std::string join(const std::vector<SourceFile>& files) {
  std::string text;
  for (const SourceFile& file : files) text += file.text;
  return text;
}

// dl_iterate_phdr's callback: takes the folder of the wheel from .../torch/lib/libtorch_cpu.so.
int find_libtorch(dl_phdr_info* info, size_t, void* result) {
  const fs::path library(info->dlpi_name);
  if (library.filename() != "libtorch_cpu.so") return 0;
  *static_cast<fs::path*>(result) = library.parent_path().parent_path();
  return 1;
}

}  // namespace

fs::path find_torch_root() {
  const char* given = std::getenv("WAVROUTE_TORCH_ROOT");
  if (given != nullptr && *given != '\0') return given;
  fs::path root;
  dl_iterate_phdr(find_libtorch, &root);
  if (root.empty()) {
    throw expected("an installed torch wheel for data.train = \"torch-source\"", "none", {},
                   "set WAVROUTE_TORCH_ROOT to the folder of the torch package, or data.train to a "
                   "text file");
  }
  return root;
}

TorchSource read_torch_source(const fs::path& torch_root, int64_t max_bytes) {
  std::vector<SourceFile> train, valid;
  for (SourceFile& file : read_files(torch_root)) {
    (fnv1a(file.path) % kValidShare == 0 ? valid : train).push_back(std::move(file));
  }
  if (train.empty() || valid.empty()) {
    throw expected(
        "the Python source of torch",
        fmt::format("{} training and {} validation files", train.size(), valid.size()),
        fmt::format("in {}", torch_root.string()),
        "set WAVROUTE_TORCH_ROOT to the folder of an installed torch package, or data.train to a "
        "text file");
  }
  if (max_bytes > 0) limit(train, max_bytes);
  return {join(train), join(valid), std::ssize(train), std::ssize(valid)};
}

}  // namespace wavroute
