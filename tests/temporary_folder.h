// A folder of its own for every test.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "wavroute/error.h"

namespace wavroute::testing {

// Removed with all its content at the end.
class TemporaryFolder {
 public:
  // `label`: how its name begins.
  explicit TemporaryFolder(const std::string& label = "wavroute-") {
    std::string name = (std::filesystem::temp_directory_path() / (label + "XXXXXX")).string();
    if (::mkdtemp(name.data()) == nullptr) throw Failure("no folder for temporary files");
    path_ = name;
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

// Plain library streams, so that the code under test isn't its own witness.
inline void put(const std::filesystem::path& path, std::string_view content) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << content;
}

inline std::string get(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The names in a folder, hidden ones too.
inline std::vector<std::string> names_in(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    names.push_back(entry.path().filename().string());
  }
  return names;
}

// The files of a checkpoint besides state.json, all small; `model` is the content of one of them.
template <class Writer>
void put_checkpoint_files(Writer& writer, const std::string& model = "weights") {
  for (const char* name : {"config.json", "optimizer.safetensors", "tokenizer.json"}) {
    writer.write(name, "{}");
  }
  put(writer.folder() / "model.safetensors", model);
}

// Runs `action` and returns the message of the `ErrorType` that it throws, hint included.
template <class ErrorType, class Action>
std::string message_of(Action&& action) {
  try {
    action();
  } catch (const ErrorType& error) {
    return std::string(error.what()) + "\nhint: " + error.hint();
  } catch (const std::exception& error) {
    ADD_FAILURE() << "another kind of error: " << error.what();
    return {};
  }
  ADD_FAILURE() << "no error";
  return {};
}

}  // namespace wavroute::testing
