// Where a foreign model's text ends.
#include "config/end_tokens.h"

#include "support.h"

namespace wavroute {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class EndTokens : public ConfigFiles {
 protected:
  [[nodiscard]] std::vector<uint32_t> read() const { return read_end_tokens(folder_); }
};

TEST_F(EndTokens, AreANumberOrAListInConfigJson) {
  EXPECT_THAT(read(), IsEmpty());  // no file at all
  static_cast<void>(write("config.json", R"({"eos_token_id": 2})"));
  EXPECT_THAT(read(), ElementsAre(2));
  static_cast<void>(write("config.json", R"({"eos_token_id": [128001, 128009]})"));
  EXPECT_THAT(read(), ElementsAre(128001, 128009));
}

TEST_F(EndTokens, OfGenerationConfigJsonGoBeforeThem) {
  static_cast<void>(write("config.json", R"({"eos_token_id": 2})"));
  static_cast<void>(write("generation_config.json", R"({"eos_token_id": [3]})"));
  EXPECT_THAT(read(), ElementsAre(3));
  for (const char* none : {R"({"eos_token_id": null})", R"({"temperature": 0.6})"}) {
    static_cast<void>(write("generation_config.json", none));
    EXPECT_THAT(read(), ElementsAre(2)) << none;
  }
}

TEST_F(EndTokens, AreNoneWhereTheModelNamesNone) {
  for (const char* none : {R"({"eos_token_id": null})", "{}", R"({"eos_token_id": -1})"}) {
    static_cast<void>(write("config.json", none));
    EXPECT_THAT(read(), IsEmpty()) << none;
  }
}

TEST_F(EndTokens, OfAnotherKindAreRefusedByFile) {
  for (const char* odd : {R"("</s>")", "2.5", "[2, null]", "true"}) {
    const std::string file =
        write("generation_config.json", std::string(R"({"eos_token_id": )") + odd + "}");
    const Message error = user_error([&] { static_cast<void>(read()); });
    EXPECT_THAT(error.what, AllOf(HasSubstr("eos_token_id"), HasSubstr(file))) << odd;
    EXPECT_THAT(error.hint, HasSubstr("--ignore-eos"));
  }
}

}  // namespace
}  // namespace wavroute
