#include "inspect/token_groups.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace wavroute {
namespace {

TEST(TokenClass, IsThatOfItsCharacters) {
  EXPECT_EQ(class_of_token(" the"), "letters");
  EXPECT_EQ(class_of_token("\xC3\xA9"), "letters");  // e with an acute
  EXPECT_EQ(class_of_token("x1"), "letters");
  EXPECT_EQ(class_of_token(" 42"), "digits");
  EXPECT_EQ(class_of_token("\n  "), "spaces");
  EXPECT_EQ(class_of_token("):"), "punctuation");
  EXPECT_EQ(class_of_token(" \xE2\x82\xAC"), "punctuation");  // euro
  EXPECT_EQ(class_of_token("\xE2\x82"), "other");             // a part of it
  EXPECT_EQ(class_of_token(""), "other");
}

class TokenGroupsOfBytes : public ::testing::Test {
 protected:
  TokenGroupsOfBytes() : tokenizer_(make_bytes_tokenizer()), counts_(256) {
    counts_['e'] = 50, counts_[' '] = 30, counts_['7'] = 15, counts_['.'] = 5;
  }
  // Whether token `id` at `place` of a window of 10 belongs to the group.
  bool belongs(const TokenGroups& groups, char id, int64_t place, const std::string& name) const {
    at::Tensor ids = at::full({1, 10}, static_cast<int64_t>('.'), at::kLong);
    ids[0][place] = static_cast<int64_t>(id);
    const at::Tensor members = groups.membership(ids, at::ones({1, 10}, at::kBool));
    const auto found = std::ranges::find(groups.groups(), name, &TokenGroup::name);
    return members[place][found - groups.groups().begin()].item<double>() == 1.0;
  }

  std::shared_ptr<const Tokenizer> tokenizer_;
  std::vector<int64_t> counts_;
};

TEST_F(TokenGroupsOfBytes, ByClassFrequencyAndPlace) {
  const TokenGroups groups(*tokenizer_, counts_, 10);
  EXPECT_TRUE(belongs(groups, 'e', 0, "letters"));
  EXPECT_TRUE(belongs(groups, ' ', 0, "spaces"));
  EXPECT_TRUE(belongs(groups, 'e', 0, "frequent"));   // half of the tokens
  EXPECT_FALSE(belongs(groups, ' ', 0, "frequent"));  // beyond it
  EXPECT_TRUE(belongs(groups, '.', 0, "rare"));       // a twentieth
  EXPECT_FALSE(belongs(groups, '7', 0, "rare"));      // with it more than a tenth
  EXPECT_TRUE(belongs(groups, 'e', 1, "0-1"));
  EXPECT_TRUE(belongs(groups, 'e', 2, "2-4"));
  EXPECT_TRUE(belongs(groups, 'e', 9, "7-9"));
}

TEST_F(TokenGroupsOfBytes, EveryTokenHasOneClassAndOnePlace) {
  const TokenGroups groups(*tokenizer_, counts_, 10);
  at::Tensor ids = at::arange(40, at::kLong).view({4, 10});
  at::Tensor counted = at::ones({4, 10}, at::kBool);
  counted[3] = false;
  const at::Tensor members = groups.membership(ids, counted);
  for (const char* kind : {"all", "class", "position"}) {
    at::Tensor sum = at::zeros({40}, at::kDouble);
    for (size_t g = 0; g < groups.groups().size(); ++g) {
      if (groups.groups()[g].kind == kind) sum += members.select(1, static_cast<int64_t>(g));
    }
    EXPECT_TRUE(at::equal(sum, counted.flatten().to(at::kDouble))) << kind;
  }
}

}  // namespace
}  // namespace wavroute
