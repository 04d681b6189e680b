// Texts of a model through the public header.
#include "wavroute/generate.h"

#include <gmock/gmock.h>

#include "tests/library/small_text_model.h"
#include "tests/temporary_folder.h"
#include "wavroute/error.h"
#include "wavroute/training.h"

namespace wavroute {
namespace {

using namespace wavroute::testing;

TextOptions likeliest(int64_t tokens) {
  TextOptions options;
  options.tokens = tokens;
  options.temperature = 0.0;
  return options;
}

TEST(ContinueText, GivesThePiecesItShowed) {
  const TextModel model = model_of_bytes();
  std::string shown;
  const std::string text = continue_text(model, "abc", likeliest(12), [&](std::string_view piece) {
    shown += piece;
    return true;
  });
  EXPECT_FALSE(text.empty());
  EXPECT_EQ(shown, text);
}

TEST(ContinueText, EndsWhereTheCallerSaysSo) {
  const TextModel model = model_of_bytes();
  int pieces = 0;
  const std::string text = continue_text(model, "abc", likeliest(12), [&](std::string_view) {
    ++pieces;
    return false;
  });
  EXPECT_EQ(pieces, 1);
  EXPECT_LT(text.size(), continue_text(model, "abc", likeliest(12)).size());
}

TEST(ContinueText, EndsBeforeAnEndToken) {
  TextModel model = model_of_bytes();
  for (uint32_t id = 0; id < 256; ++id) model.end_tokens.push_back(id);
  EXPECT_EQ(continue_text(model, "abc", likeliest(12)), "");
}

TEST(ContinueText, RefusesWhatIsNoPromptOrNoOption) {
  const TextModel model = model_of_bytes();
  EXPECT_THROW(continue_text(model, "", likeliest(1)), UserError);
  EXPECT_THROW(continue_text(model, "a", likeliest(0)), UserError);
  TextOptions options;
  options.temperature = -1.0;
  EXPECT_THROW(continue_text(model, "a", options), UserError);
}

TEST(LoadTextModel, ReadsWhatSaveModelWrote) {
  const TemporaryFolder folder;
  const TextModel model = model_of_bytes();
  save_model(*model.decoder, *model.tokenizer, folder.path() / "model");
  const TextModel read = load_text_model(folder.path() / "model");
  EXPECT_EQ(read.tokenizer->hash(), model.tokenizer->hash());
  EXPECT_EQ(read.decoder->spec().scheme, "wav");
  EXPECT_EQ(continue_text(read, "abc", likeliest(12)), continue_text(model, "abc", likeliest(12)));
  EXPECT_THROW(save_model(*model.decoder, *model.tokenizer, folder.path() / "model"), UserError);
  EXPECT_THROW(static_cast<void>(load_text_model(folder.path() / "other")), UserError);
}

}  // namespace
}  // namespace wavroute
