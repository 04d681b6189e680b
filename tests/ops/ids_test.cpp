// Ids are checked before they index memory.
#include "ops/ids.h"
#include "ops/arena.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <limits>

#include "ops/cross_entropy.h"
#include "ops/flat.h"
#include "wavroute/error.h"

namespace wavroute::ops {
namespace {

constexpr int64_t kVocabulary = 5;
const std::vector<int64_t> kOutside = {kVocabulary, -1, std::numeric_limits<int64_t>::max(),
                                       std::numeric_limits<int64_t>::min()};

TEST(Ids, BeyondTheLogitsAreRefusedAsTargets) {
  Arena arena;
  for (const int64_t id : kOutside) {
    at::Tensor logits = at::zeros({3, kVocabulary});
    const at::Tensor targets = at::tensor({int64_t{4}, kUnscored, id}, at::kLong);
    EXPECT_THROW(static_cast<void>(cross_entropy(arena, logits, targets, 1.0)), UserError) << id;
    EXPECT_TRUE(at::equal(logits, at::zeros({3, kVocabulary}))) << id;
  }
}

TEST(Ids, BeyondATableAreRefusedAsRows) {
  for (const int64_t id : {kOutside[0], kOutside[1], kOutside[2], kOutside[3], kUnscored}) {
    const at::Tensor table = at::zeros({kVocabulary, 2});
    const at::Tensor ids = at::tensor({int64_t{0}, id}, at::kLong);
    EXPECT_THROW(add_rows(ids, at::ones({2, 2}), table), UserError) << id;
    EXPECT_TRUE(at::equal(table, at::zeros({kVocabulary, 2}))) << id;
  }
}

TEST(Ids, OfTheVocabularyAreTaken) {
  const at::Tensor ids = at::arange(kVocabulary);
  EXPECT_NO_THROW(check_ids(ids, kVocabulary));
  EXPECT_NO_THROW(check_ids(at::full({2, 2}, kUnscored, at::kLong), kVocabulary, true));
  EXPECT_NO_THROW(check_ids(at::empty({0}, at::kLong), kVocabulary));
}

}  // namespace
}  // namespace wavroute::ops
