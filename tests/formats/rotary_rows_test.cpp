#include "formats/rotary_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "formats/gguf_names.h"

namespace wavroute {
namespace {

using ::testing::ElementsAre;

TEST(RotaryRows, PairsOfNeighboursBecomePairsOfHalves) {
  // Two heads of width 4, rows of one number.
  std::vector<float> rows = {0, 1, 2, 3, 10, 11, 12, 13};
  reorder_rows(rows, 4, 1, /*to_half_split=*/true);
  EXPECT_THAT(rows, ElementsAre(0, 2, 1, 3, 10, 12, 11, 13));
  reorder_rows(rows, 4, 1, /*to_half_split=*/false);
  EXPECT_THAT(rows, ElementsAre(0, 1, 2, 3, 10, 11, 12, 13));
}

TEST(RotaryRows, MoveWithAllTheirColumns) {
  std::vector<float> rows = {0, 1, 10, 11, 20, 21, 30, 31};
  reorder_rows(rows, 4, 2, /*to_half_split=*/true);
  EXPECT_THAT(rows, ElementsAre(0, 1, 20, 21, 10, 11, 30, 31));
}

TEST(GgufNames, AreThoseOfLlamaCpp) {
  EXPECT_EQ(GgufNames::of("model.embed_tokens.weight"), "token_embd.weight");
  EXPECT_EQ(GgufNames::of("model.layers.12.self_attn.q_proj.bias"), "blk.12.attn_q.bias");
  EXPECT_EQ(GgufNames::of("model.layers.0.mlp.down_proj.weight"), "blk.0.ffn_down.weight");
  EXPECT_EQ(GgufNames::of("lm_head.weight"), "output.weight");
  EXPECT_EQ(GgufNames::of("model.layers.0.mlp_res_proj.weight"), "");
  EXPECT_EQ(GgufNames::of("weight"), "");
  EXPECT_TRUE(GgufNames::is_rotary("model.layers.1.self_attn.k_proj.weight"));
  EXPECT_FALSE(GgufNames::is_rotary("model.layers.1.self_attn.v_proj.weight"));
}

}  // namespace
}  // namespace wavroute
