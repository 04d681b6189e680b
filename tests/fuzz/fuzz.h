// What the targets share: a folder for the files of one input, and the rule for every reader: it
// accepts an input or refuses it with a UserError. Anything else ends the program, which libFuzzer
// reports.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "wavroute/error.h"

namespace wavroute::fuzz {

// Emptied at the start and removed at the end of the process; in memory if the system supports it.
inline const std::filesystem::path& scratch() {
  static const std::filesystem::path folder = [] {
    const std::filesystem::path memory = "/dev/shm";
    const auto parent =
        std::filesystem::is_directory(memory) ? memory : std::filesystem::temp_directory_path();
    auto made = parent / ("wavroute-fuzz-" + std::to_string(getpid()));
    std::filesystem::remove_all(made);
    std::filesystem::create_directories(made);
    std::atexit([] {
      std::error_code ignored;
      std::filesystem::remove_all(scratch(), ignored);
    });
    return made;
  }();
  return folder;
}

inline void put(const std::filesystem::path& file, std::string_view content) {
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file, std::ios::binary) << content;
}

// Whether `read` accepts its input; false if it throws a UserError.
template <typename Read>
bool accepts(const Read& read) {
  try {
    read();
    return true;
  } catch (const UserError&) {
    return false;
  }
}

inline void require(bool condition, const char* property) {
  if (condition) return;
  std::fprintf(stderr, "not so: %s\n", property);
  std::abort();
}

}  // namespace wavroute::fuzz

#define WAVROUTE_FUZZ_TARGET(text)                                          \
  static void fuzz_one(std::string_view text);                              \
  extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) { \
    fuzz_one({reinterpret_cast<const char*>(data), size});                  \
    return 0;                                                               \
  }                                                                         \
  static void fuzz_one(std::string_view text)
