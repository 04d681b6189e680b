// What several data tests need: a folder of their own, and the cache inside it.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "data/token_file.h"
#include "tests/temporary_folder.h"
#include "wavroute/error.h"

namespace wavroute {

class ScratchTest : public ::testing::Test {
 protected:
  ScratchTest() { setenv("WAVROUTE_CACHE", (folder_ / "cache").c_str(), 1); }
  ~ScratchTest() override {
    unsetenv("WAVROUTE_CACHE");
    unsetenv("WAVROUTE_TORCH_ROOT");
  }

  // Writes a file below the folder; gives its path.
  std::string write(const std::filesystem::path& name, std::string_view content) const {
    testing::put(folder_ / name, content);
    return (folder_ / name).string();
  }

  [[nodiscard]] std::vector<std::filesystem::path> cached_files() const {
    std::vector<std::filesystem::path> files;
    if (!std::filesystem::exists(folder_ / "cache")) return files;
    for (const auto& entry : std::filesystem::directory_iterator(folder_ / "cache")) {
      files.push_back(entry.path());
    }
    return files;
  }

  const testing::TemporaryFolder temporary_;
  const std::filesystem::path folder_ = temporary_.path();
};

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
