// The vocabulary that an exported GGUF file gets: which tokens it names as ends.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "data/vocabulary.h"
#include "formats/export_model.h"
#include "tests/temporary_folder.h"
#include "wavroute/tokenizer.h"

namespace wavroute {
namespace {

using ::testing::HasSubstr;
using testing::message_of;
using testing::TemporaryFolder;
using Json = nlohmann::json;

// The 256 bytes as GPT-2 writes them, then `more`.
Vocabulary byte_level(const std::vector<Piece>& more) {
  Vocabulary v;
  const auto add = [&](int point) {
    if (point < 0x80) {
      v.pieces.push_back({std::string(1, static_cast<char>(point))});
    } else {
      v.pieces.push_back(
          {{static_cast<char>(0xc0 | (point >> 6)), static_cast<char>(0x80 | (point & 0x3f))}});
    }
  };
  int beyond = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool is_shown = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte != 0xad);
    add(is_shown ? byte : beyond++);
  }
  for (const Piece& piece : more) v.pieces.push_back(piece);
  v.merges = {"a b"};
  v.pieces.push_back({"ab"});
  v.pre_tokenizer = "gpt-2";
  return v;
}

class GgufVocabulary : public ::testing::Test {
 protected:
  GgufFile written(const std::string& json, int64_t vocab_size) const {
    ForeignModel model;
    model.vocab_size = vocab_size;
    model.tokenizer.json = json;
    GgufWriter writer;
    add_vocabulary(writer, model);
    writer.write(folder_ / "m.gguf");
    return GgufFile(folder_ / "m.gguf");
  }
  TemporaryFolder folder_;
};

TEST_F(GgufVocabulary, NamesTheEndThatTheTokenizerHas) {
  const Vocabulary v = byte_level({{"<|endoftext|>", 0, PieceType::kControl}});
  const std::string json = byte_level_json(v, "here");
  ASSERT_EQ(tokenizer_from_json(json)->end_token(), 256U);
  const GgufFile file = written(json, 258);
  EXPECT_EQ(file.integer("tokenizer.ggml.eos_token_id"), 256);
  EXPECT_EQ(file.integer("tokenizer.ggml.bos_token_id"), std::nullopt);
}

TEST_F(GgufVocabulary, NamesNoTextAsAnEnd) {
  const GgufFile file = written(byte_level_json(byte_level({}), "here"), 257);
  EXPECT_EQ(file.integer("tokenizer.ggml.eos_token_id"), std::nullopt);
  EXPECT_EQ(file.integer("tokenizer.ggml.bos_token_id"), std::nullopt);
  const GgufFile bytes = written(make_bytes_tokenizer()->to_json(), 256);
  EXPECT_EQ(bytes.integer("tokenizer.ggml.eos_token_id"), 0);
  EXPECT_EQ(bytes.integer("tokenizer.ggml.bos_token_id"), 0);
}

TEST_F(GgufVocabulary, OfMergesWithoutASpaceIsRefused) {
  Json json = Json::parse(byte_level_json(byte_level({}), "here"));
  for (const bool of_pieces : {false, true}) {
    json["model"]["byte_fallback"] = of_pieces;
    for (const char* merge : {"ab", "", " ab"}) {
      json["model"]["merges"] = {merge};
      EXPECT_THAT(message_of<UserError>([&] { written(json.dump(), 257); }),
                  HasSubstr("merges of another form"))
          << merge;
    }
  }
}

}  // namespace
}  // namespace wavroute
