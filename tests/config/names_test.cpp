// Names that no TOML or JSON file can hold.
#include "config/names.h"

#include "support.h"

namespace wavroute {
namespace {

using ::testing::HasSubstr;

TEST(Names, ThatAreNotUtf8AreRefusedByTheirKey) {
  EXPECT_NO_THROW(check_names({}));
  Config config;
  config.data.valid = "/t\xfcr/valid.txt";
  EXPECT_THAT(user_error([&] { check_names(config); }).what,
              HasSubstr("data.valid = \"/t\\xfcr/valid.txt\""));
  config = {};
  config.sample.prompt = "\xff";
  EXPECT_THAT(user_error([&] { check_names(config); }).what, HasSubstr("sample.prompt"));
}

TEST(Names, OfAFolderThatIsNotUtf8IsRefused) {
  EXPECT_NO_THROW(check_out("r\u00fcns/caf\u00e9"));
  EXPECT_THAT(user_error([] { check_out("runs/caf\xe9"); }).what,
              HasSubstr("--out = runs/caf\\xe9"));
}

}  // namespace
}  // namespace wavroute
