// Output that may be lost, in a program that must not be.
#include "base/print.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>

namespace wavroute {
namespace {

TEST(PrintOrDrop, SaysThatAFullStreamTookNothingAndUsesItAgain) {
  std::FILE* full = std::fopen("/dev/full", "w");
  if (full == nullptr) GTEST_SKIP() << "no /dev/full here";
  EXPECT_FALSE(print_or_drop(full, "lost\n"));
  EXPECT_EQ(std::ferror(full), 0);
  EXPECT_FALSE(print_or_drop(full, "lost again\n"));
  std::fclose(full);
}

TEST(PrintOrDrop, SurvivesADescriptorThatIsGone) {
  std::FILE* file = std::tmpfile();
  ASSERT_NE(file, nullptr);
  EXPECT_TRUE(print_or_drop(file, "kept\n"));
  close(fileno(file));
  EXPECT_FALSE(print_or_drop(file, "lost\n"));
  std::fclose(file);
}

}  // namespace
}  // namespace wavroute
