// The choice of an instruction set.
#include "kernels/kernels.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "wavroute/error.h"

namespace wavroute::kernels {
namespace {

TEST(Kernels, OfThePortableSetAreUsableEverywhere) {
  ASSERT_FALSE(usable_kernels().empty());
  EXPECT_EQ(usable_kernels().front().isa, Isa::kPortable);
}

TEST(Kernels, AreListedFromThePlainestAndComplete) {
  for (size_t i = 0; i < usable_kernels().size(); ++i) {
    const Kernels& kernels = usable_kernels()[i];
    if (i > 0) {
      EXPECT_GT(kernels.isa, usable_kernels()[i - 1].isa);
    }
    EXPECT_NE(kernels.stream->fp32.add_norm, nullptr);
    EXPECT_NE(kernels.activation->bf16.swiglu, nullptr);
    EXPECT_NE(kernels.flat->adamw, nullptr);
    EXPECT_NE(kernels.attention->bf16.forward, nullptr);
    EXPECT_NE(kernels.finished->fp32.mix.bf16.forward, nullptr);
    EXPECT_NE(kernels.running->bf16.write_read, nullptr);
    EXPECT_NE(kernels.decode->fp32.attend, nullptr);
    EXPECT_NE(kernels.q8->by_type.bf16.products, nullptr);
  }
}

TEST(Kernels, AreThoseThatTheEnvironmentNames) {
  for (const Kernels& kernels : usable_kernels()) {
    EXPECT_EQ(find_kernels(to_string(kernels.isa).c_str()).isa, kernels.isa);
  }
  EXPECT_EQ(find_kernels(nullptr).isa, usable_kernels().back().isa);
  EXPECT_EQ(find_kernels("").isa, usable_kernels().back().isa);
  EXPECT_THROW(static_cast<void>(find_kernels("sse9")), UserError);
}

}  // namespace
}  // namespace wavroute::kernels
