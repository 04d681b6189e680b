// What a pipeline's stage is sent, counted by hand.
#include <gmock/gmock.h>

#include "wavroute/residual.h"

namespace wavroute {
namespace {

using ::testing::ElementsAre;

std::vector<double> carried(const std::string& scheme, int64_t layers,
                            const Options& options = {}) {
  const auto residual = find_scheme(scheme).create(options, {layers, 16}, 1e-6);
  std::vector<double> tensors;
  for (int64_t i = 0; i < 2 * layers; ++i) tensors.push_back(residual->carried_states(i));
  return tensors;
}

Options blocks(int64_t count) { return {{"blocks", count}}; }

TEST(CarriedStates, OfAdditiveSchemesIsTheStream) {
  for (const char* scheme :
       {"prenorm", "rezero", "layerscale", "block_layerscale", "layerdrop", "gated"}) {
    EXPECT_EQ(carried(scheme, 2), std::vector<double>(4, 1.0)) << scheme;
  }
}

// Two blocks of four sublayers: e; after each block its sums; within one, its running sums, of
// which those that follow from the others are not sent.
TEST(CarriedStates, OfRoutedSchemesAreTheSourcesAndTheRunningSums) {
  EXPECT_THAT(carried("block_attnres", 4, blocks(2)), ElementsAre(1, 2, 2, 2, 2, 3, 3, 3));
  // S and Q are the same in the first half.
  EXPECT_THAT(carried("haares", 4, blocks(2)), ElementsAre(1, 2, 2, 3, 3, 4, 4, 5));
  // S, P and Q are the same but for the sign after one update; three from the second half on.
  EXPECT_THAT(carried("wav", 4, blocks(2)), ElementsAre(1, 2, 3, 4, 4, 5, 6, 7));
}

TEST(CarriedStates, OfFullAttnresIsEveryUpdate) {
  EXPECT_THAT(carried("full_attnres", 3), ElementsAre(1, 2, 3, 4, 5, 6));
}

TEST(CarriedStates, OfDenseformerAreTheOutputsThatAreReadLater) {
  // X_0 .. X_i, and the average that the next layer reads; within a layer the sum so far.
  EXPECT_THAT(carried("denseformer", 3), ElementsAre(1, 2, 3, 3, 4, 4));
  // An average after layer 2 of X_0 and X_2 alone.
  const Options sparse = {{"dilation", int64_t{2}}, {"period", int64_t{2}}};
  EXPECT_THAT(carried("denseformer", 2, sparse), ElementsAre(1, 2, 2, 2));
}

TEST(CarriedStates, OfParallelStreamsAreAllOfThem) {
  EXPECT_EQ(carried("mhc_lite", 2, {{"streams", int64_t{3}}}), std::vector<double>(4, 3.0));
  EXPECT_EQ(carried("act", 2), std::vector<double>(4, 2.0));
}

TEST(EarlierPositions, AreThoseOfTheWindows) {
  const auto gated = find_scheme("gated").create({}, {2, 16}, 1e-6);
  EXPECT_EQ(gated->earlier_positions(), 7);
  EXPECT_EQ(find_scheme("wav").create({}, {4, 16}, 1e-6)->earlier_positions(), 0);
}

}  // namespace
}  // namespace wavroute
