#include "bench/pytorch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "tests/temporary_folder.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

// A checkout with a program at build/bin/wavroute; it contains only what a test writes.
class FindPyTorch : public ::testing::Test {
 protected:
  void SetUp() override {
    ::unsetenv("WAVROUTE_PYTHON");
    ::unsetenv("WAVROUTE_BASELINE");
  }
  void TearDown() override {
    ::unsetenv("WAVROUTE_PYTHON");
    ::unsetenv("WAVROUTE_BASELINE");
  }

  fs::path write(const std::string& name, const std::string& text) const {
    testing::put(root_ / name, text);
    return root_ / name;
  }
  // A program that answers like an interpreter.
  fs::path write_python(const std::string& name, const std::string& answer) const {
    auto path = write(name, "#!/bin/sh\necho '" + answer + "'\n");
    fs::permissions(path, fs::perms::owner_all);
    return path;
  }

  PyTorch find() const { return find_pytorch(root_ / "build/bin/wavroute"); }

  const testing::TemporaryFolder temporary_{"wavroute pytorch "};
  const fs::path root_ = temporary_.path();
};

TEST_F(FindPyTorch, TakesTheEnvironmentBesideTheBuildFolder) {
  const auto python =
      write_python(".venv/bin/python", R"({"python": "3.99", "torch": "2.13.0+cpu"})");
  const auto script = write("bench/baseline.py", "");
  const auto found = find();
  EXPECT_EQ(found.python, python.string());
  EXPECT_EQ(found.python_version, "3.99");
  EXPECT_EQ(found.torch_version, "2.13.0+cpu");
  EXPECT_EQ(found.script, script);
  EXPECT_EQ(found.missing(), "");
}

TEST_F(FindPyTorch, VariablesOfTheEnvironmentComeFirst) {
  write_python(".venv/bin/python", R"({"python": "3.99", "torch": "1"})");
  const auto python = write_python("other", R"({"python": "3.77", "torch": "2"})");
  const auto script = write("my baseline.py", "");
  ::setenv("WAVROUTE_PYTHON", python.c_str(), 1);
  ::setenv("WAVROUTE_BASELINE", script.c_str(), 1);
  const auto found = find();
  EXPECT_EQ(found.python_version, "3.77");
  EXPECT_EQ(found.script, script);
}

TEST_F(FindPyTorch, SaysWhatIsMissing) {
  const auto python = root_ / "python";
  ::setenv("WAVROUTE_PYTHON", python.c_str(), 1);
  EXPECT_THAT(find().missing(), HasSubstr("is not a Python that runs"));
  write_python("python", "Python 2.7: what is json?");
  EXPECT_THAT(find().missing(), HasSubstr("is not a Python that runs"));
  write_python("python", R"({"python": "3.99", "torch": ""})");
  EXPECT_THAT(find().missing(), HasSubstr("has no torch"));
  write_python("python", R"({"python": "3.99", "torch": "2.13.0"})");
  EXPECT_THAT(find().missing(), HasSubstr("bench/baseline.py"));
}

TEST_F(FindPyTorch, TheBaselineItselfSaysWhatItSupports) {
  PyTorch pytorch;
  pytorch.script = "baseline.py";
  pytorch.python = write_python(
      "python", R"({"supports": {"plain": {"options": [], "sources_per_block": 0}, )"
                R"("rows": {"options": ["blocks", "some_flag"], "sources_per_block": 2}}})");
  const auto support = ask_baseline(pytorch);
  ASSERT_EQ(support.schemes.size(), 2U);
  EXPECT_EQ(support.schemes.at("rows").sources_per_block, 2);

  Config config;
  config.residual = {"rows", {{"blocks", int64_t{3}}}};
  EXPECT_EQ(support.missing(config), "");
  config.residual.options["other"] = true;
  EXPECT_THAT(support.missing(config), HasSubstr("'other'"));
  config.residual = {"plain", {}};
  EXPECT_EQ(support.missing(config), "");
  config.model.tie_embeddings = true;
  EXPECT_THAT(support.missing(config), HasSubstr("tied embeddings"));
  config.residual.scheme = "unheard_of";
  EXPECT_THAT(support.missing(config), HasSubstr("no PyTorch baseline"));
}

TEST_F(FindPyTorch, ABaselineThatAnswersInAnotherFormIsAFailure) {
  for (const char* answer :
       {R"({"supports": {"plain": {}}})", R"({"supports": 3})", R"({"ready": true})"}) {
    PyTorch pytorch;
    pytorch.script = "baseline.py";
    pytorch.python = write_python("python", answer);
    EXPECT_THROW((void)ask_baseline(pytorch), Failure) << answer;
  }
}

TEST(BaselineFlags, SpellEveryKindOfOptionAndLeaveOutAuto) {
  EXPECT_THAT(baseline_flags({{"blocks", std::string("auto")},
                              {"count", int64_t{6}},
                              {"partial_details", false},
                              {"some_flag", true},
                              {"some_number", -4.5}}),
              ::testing::ElementsAre("--count=6", "--no-partial-details", "--some-flag",
                                     "--some-number=-4.5"));
}

}  // namespace
}  // namespace wavroute
