#include "base/build_info.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace wavroute {
namespace {

using ::testing::HasSubstr;

TEST(BuildInfo, NamesTheCompilerThatCompiledThisTest) {
  EXPECT_THAT(std::string(build_info().compiler),
              HasSubstr(std::to_string(__GNUC__) + "." + std::to_string(__GNUC_MINOR__)));
  EXPECT_THAT(std::string(build_info().commit),
              ::testing::MatchesRegex("unknown|[0-9a-f]{7,40}(-dirty)?"));
  EXPECT_FALSE(build_info().torch_version.empty());
}

}  // namespace
}  // namespace wavroute
