// Output that may be lost, in a program that must not be, and results that may not be.
#include "base/output.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <functional>
#include <system_error>

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

// The error number that `call` throws for standard output, 0 for none.
int error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const std::system_error& error) {
    return error.code().value();
  }
  return 0;
}

// In a process of its own, which loses its standard output.
void lose_a_result() {
  dup2(open("/dev/full", O_WRONLY), STDOUT_FILENO);
  const bool said = error_of([] {
                      print("a result\n");
                      flush();
                    }) == ENOSPC;
  const bool stays = output_failed() && error_of(finish_output) != 0;
  std::clearerr(stdout);
  _exit(said && stays ? 0 : 1);
}

TEST(Print, AResultThatDoesNotArriveIsAnErrorToTheEnd) {
  if (access("/dev/full", W_OK) != 0) GTEST_SKIP() << "no /dev/full here";
  EXPECT_EXIT(lose_a_result(), ::testing::ExitedWithCode(0), "");
}

// A line that may be lost takes no result with it, and leaves no mark that fails a later one.
void drop_a_line_and_print_a_result() {
  const int before = dup(STDOUT_FILENO);
  dup2(open("/dev/full", O_WRONLY), STDOUT_FILENO);
  const bool dropped = !print_or_drop(stdout, "a line\n");
  dup2(before, STDOUT_FILENO);
  const int error = error_of([] {
    print("a result\n");
    finish_output();
  });
  _exit(dropped && error == 0 ? 0 : 1);
}

TEST(Print, IsNotFailedByALineThatWasDropped) {
  if (access("/dev/full", W_OK) != 0) GTEST_SKIP() << "no /dev/full here";
  EXPECT_EXIT(drop_a_line_and_print_a_result(), ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace wavroute
