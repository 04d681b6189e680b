// What several data tests need: a folder of their own, and the cache inside it.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include "data/token_file.h"
#include "wavroute/error.h"

namespace wavroute {

class ScratchTest : public ::testing::Test {
 protected:
  ScratchTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "wavroute-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
    setenv("WAVROUTE_CACHE", (folder_ / "cache").c_str(), 1);
  }
  ~ScratchTest() override {
    unsetenv("WAVROUTE_CACHE");
    unsetenv("WAVROUTE_TORCH_ROOT");
    std::filesystem::remove_all(folder_);
  }

  // Writes a file below the folder; gives its path.
  std::string write(const std::filesystem::path& name, std::string_view content) const {
    const auto path = folder_ / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << content;
    return path.string();
  }

  [[nodiscard]] std::vector<std::filesystem::path> cached_files() const {
    std::vector<std::filesystem::path> files;
    if (!std::filesystem::exists(folder_ / "cache")) return files;
    for (const auto& entry : std::filesystem::directory_iterator(folder_ / "cache")) {
      files.push_back(entry.path());
    }
    return files;
  }

  std::filesystem::path folder_;
};

inline std::string content_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline std::vector<int64_t> all_tokens(const TokenView& view) {
  std::vector<int64_t> tokens(static_cast<size_t>(view.size()));
  view.copy(0, tokens);
  return tokens;
}

// The message of the UserError that `act` must throw.
inline std::string user_error(const std::function<void()>& act) {
  try {
    act();
  } catch (const UserError& error) {
    return error.what();
  }
  ADD_FAILURE() << "no UserError was thrown";
  return {};
}

}  // namespace wavroute
