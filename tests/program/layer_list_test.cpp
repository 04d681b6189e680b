#include "program/layer_list.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "io/file.h"
#include "tests/temporary_folder.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using testing::put;
using testing::TemporaryFolder;

TEST(LayerList, IsReadAsAListAndAsAnObjectWithLayers) {
  const TemporaryFolder folder;
  put(folder / "list.json", "[0, 1, 2, 2, 5]\n");
  put(folder / "object.json", R"({"loss": 2.5, "layers": [3, 1]})");
  EXPECT_EQ(read_layer_list(folder / "list.json", 6), (Layers{0, 1, 2, 2, 5}));
  EXPECT_EQ(read_layer_list(folder / "object.json", 6), (Layers{3, 1}));
}

TEST(LayerList, IsWrittenAsItIsRead) {
  const TemporaryFolder folder;
  write_layer_list({0, 2, 2, 4}, folder / "p.json");
  EXPECT_EQ(read_file(folder / "p.json"), "[0,2,2,4]\n");
  EXPECT_EQ(read_layer_list(folder / "p.json", 5), (Layers{0, 2, 2, 4}));
}

TEST(LayerList, RefusesWhatIsNoListOfTheModelsLayers) {
  const TemporaryFolder folder;
  for (const char* text : {"[]", "{}", "\"0-3\"", "[0, 6]", "[-1]", "[1.5]", "[[0, 1]]", "[0,"}) {
    put(folder / "p.json", text);
    EXPECT_THROW(static_cast<void>(read_layer_list(folder / "p.json", 6)), UserError) << text;
  }
  EXPECT_THROW(static_cast<void>(read_layer_list(folder / "none.json", 6)), UserError);
}

TEST(ProgramText, HasRangesAndRepeats) {
  EXPECT_EQ(program_text({0, 1, 2, 3}), "0-3");
  EXPECT_EQ(program_text({4}), "4");
  EXPECT_EQ(program_text({0, 2, 4}), "0,2,4");
  EXPECT_EQ(program_text({0, 1, 2, 2, 2, 5, 6}), "0-1,2x3,5-6");
  EXPECT_EQ(program_text({3, 3, 2, 1}), "3x2,2,1");
}

}  // namespace
}  // namespace wavroute
