#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "io/file.h"
#include "io/mapped_pages.h"
#include "tests/temporary_folder.h"

namespace wavroute {
namespace {

using testing::put;
using testing::TemporaryFolder;

size_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  size_t all = 0, resident = 0;
  statm >> all >> resident;
  return resident * static_cast<size_t>(::sysconf(_SC_PAGESIZE));
}

TEST(MappedFile, PagesThatAreReleasedTakeNoMemoryAndAreReadAgain) {
  const TemporaryFolder folder;
  std::string text;
  for (int i = 0; text.size() < (size_t{32} << 20); ++i) text += std::to_string(i);
  put(folder / "a", text);
  const MappedFile file(folder / "a");
  EXPECT_EQ(file.text(), text);
  [[maybe_unused]] const size_t before = resident_bytes();  // unused under the address sanitizer
  release_pages(file.bytes().subspan(1, file.bytes().size() - 2));
#ifndef __SANITIZE_ADDRESS__
  EXPECT_LT(resident_bytes() + (size_t{30} << 20), before);
#endif
  EXPECT_EQ(file.text(), text);
  // Less than a page: nothing to give back.
  release_pages(file.bytes().subspan(5, 3));
  release_pages({});
  EXPECT_EQ(file.text(), text);
}

// Reads the last byte of a mapped file of two pages that was cut to one: the system sends SIGBUS.
void read_beyond_the_cut(const std::filesystem::path& path) {
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  put(path, std::string(2 * page, 'x'));
  const MappedFile file(path);
  std::filesystem::resize_file(path, page);
  volatile const char last = file.text().back();
  static_cast<void>(last);
}

TEST(MappedFileDeathTest, SaysWhichFileWasCutShortAndExitsWithOne) {
  const TemporaryFolder folder;
  EXPECT_EXIT(read_beyond_the_cut(folder / "tokens"), ::testing::ExitedWithCode(1),
              "cannot read .*/tokens: it was cut short.*\n.*hint: ");
  EXPECT_EXIT(read_beyond_the_cut(folder / "a\x1b[2J"), ::testing::ExitedWithCode(1),
              "a.x1b\\[2J: it was cut short");
}

TEST(MappedFileDeathTest, AnotherBusErrorStaysOne) {
  const TemporaryFolder folder;
  put(folder / "a", "x");
  const MappedFile file(folder / "a");
#ifdef __SANITIZE_ADDRESS__
  EXPECT_DEATH(::raise(SIGBUS), "AddressSanitizer: BUS");  // whose handler was installed first
#else
  EXPECT_EXIT(::raise(SIGBUS), ::testing::KilledBySignal(SIGBUS), "");
#endif
  EXPECT_EXIT(
      {
        for (int i = 0; i < 200; ++i) const MappedFile again(folder / "a");
        read_beyond_the_cut(folder / "b");  // removed ranges leave room
      },
      ::testing::ExitedWithCode(1), "/b: it was cut short");
}

}  // namespace
}  // namespace wavroute
