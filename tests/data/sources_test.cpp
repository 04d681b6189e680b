// Sources: what is unpacked, listed and cut into documents.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "data/source_bytes.h"
#include "data/sources.h"
#include "io/file.h"
#include "tests/data/scratch.h"

namespace wavroute {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string gzipped(const std::string& text) {
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  std::string packed(deflateBound(&stream, text.size()) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  deflate(&stream, Z_FINISH);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

std::string zstd_packed(const std::string& text) {
  std::string packed(ZSTD_compressBound(text.size()), '\0');
  packed.resize(ZSTD_compress(packed.data(), packed.size(), text.data(), text.size(), 3));
  return packed;
}

// Text that doesn't shrink to nothing.
std::string long_text() {
  std::string text;
  uint64_t state = 1;
  while (text.size() < 3'000'000) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    text += std::to_string(state >> 40) + " ";
  }
  return text;
}

class Sources : public ScratchTest {
 protected:
  static std::string read_all(SourceBytes& bytes, size_t piece = 100'000) {
    std::string all, buffer(piece, '\0');
    for (;;) {
      const size_t count = bytes.read(buffer);
      if (count == 0) return all;
      all.append(buffer, 0, count);
    }
  }
  std::string unpacked(const std::string& content, size_t piece = 100'000) const {
    SourceBytes bytes(write("packed", content));
    return read_all(bytes, piece);
  }

  // The documents of one file.
  std::vector<std::string> documents(const std::string& name, const std::string& content,
                                     const SourceOptions& options = {}) const {
    return documents_of(list_sources({write(name, content)}, options));
  }
  static std::vector<std::string> documents_of(const std::vector<SourceFile>& sources) {
    std::vector<std::string> all;
    for (const SourceFile& source : sources) {
      SourceReader reader(source, "python3");
      (void)reader.read([&](const SourceDocument& document, auto) {
        all.emplace_back(document.text);
        return true;
      });
    }
    return all;
  }
  std::string refused(const std::string& name, const std::string& content,
                      const SourceOptions& options = {}) const {
    return testing::message_of<UserError>([&] { (void)documents(name, content, options); });
  }
};

TEST_F(Sources, GzipAndZstdComeBackWhole) {
  const std::string text = long_text();
  for (const auto pack : {gzipped, zstd_packed}) {
    EXPECT_EQ(unpacked(pack(text)), text);
    EXPECT_EQ(unpacked(pack("")), "");
    EXPECT_EQ(unpacked(pack("abc"), 1), "abc");
    // Several members or frames are one text.
    EXPECT_EQ(unpacked(pack(text) + pack("") + pack("more")), text + "more");
  }
  EXPECT_EQ(unpacked(gzipped("abc") + std::string(512, '\0')), "abc");  // a tape's block
  EXPECT_EQ(unpacked("plain"), "plain");
  EXPECT_EQ(unpacked(""), "");
}

TEST_F(Sources, TheDigestIsOfTheFileAsItIsStored) {
  const std::string packed = gzipped("abc");
  SourceBytes bytes(write("a.gz", packed));
  EXPECT_EQ(read_all(bytes), "abc");
  EXPECT_EQ(bytes.stored_bytes(), packed.size());
  EXPECT_EQ(bytes.sha256(), sha256_hex(packed));
  EXPECT_EQ(bytes.packing(), "gzip");
}

TEST_F(Sources, PackedDataThatIsCutShortIsAnErrorWhereverThatIs) {
  for (const auto& [pack, name] : {std::pair(&gzipped, "gzip"), std::pair(&zstd_packed, "zstd")}) {
    const std::string packed = pack("some text that is long enough to be cut");
    for (size_t length = 4; length < packed.size(); ++length) {
      const std::string error =
          testing::message_of<UserError>([&] { (void)unpacked(packed.substr(0, length)); });
      EXPECT_THAT(error, HasSubstr(std::string("whole ") + name + " data, given data that is cut"));
      EXPECT_THAT(error, HasSubstr("/packed"));
    }
  }
}

TEST_F(Sources, WhatIsBehindPackedDataOrDamagedInItIsAnError) {
  for (const std::string& garbage : {std::string("garbage"), std::string("\0\0x", 3)}) {
    EXPECT_THAT(testing::message_of<UserError>([&] { (void)unpacked(gzipped("abc") + garbage); }),
                HasSubstr("something else behind its end, in"));
  }
  EXPECT_THAT(
      testing::message_of<UserError>([&] { (void)unpacked(zstd_packed("abc") + "garbage"); }),
      HasSubstr("whole zstd data, given"));
  for (const auto pack : {gzipped, zstd_packed}) {
    std::string packed = pack(long_text());
    packed[packed.size() / 2] ^= 0x55;
    packed[packed.size() / 2 + 1] ^= 0x55;
    EXPECT_THAT(testing::message_of<UserError>([&] { (void)unpacked(packed); }),
                HasSubstr("at byte"));
  }
}

// The last bits are still to be unpacked when the input is at its end and `out` is full.
TEST_F(Sources, DamageInTheLastBitsIsAnErrorToo) {
  constexpr size_t kPiece = size_t{1} << 20, kHeader = 10, kTrailer = 8;
  std::string packed = gzipped(std::string(kPiece + 1, 'a'));
  packed.resize(packed.size() - kTrailer);
  packed[kHeader] &= ~1;  // another block follows
  int damaged = 0;
  for (int padding = 0; padding < 8; ++padding) {
    std::string bad = packed;
    bad.back() = static_cast<char>(bad.back() | (0xFF << (8 - padding)));  // of the type 3
    const std::string path = write("a.gz", bad);
    const std::string error = user_error([&] {
      SourceBytes bytes(path);
      (void)read_all(bytes, kPiece);
    });
    EXPECT_THAT(error, HasSubstr("expected whole gzip data"));
    damaged += error.find("invalid block type") != std::string::npos ? 1 : 0;
  }
  EXPECT_GT(damaged, 0);
}

TEST_F(Sources, AFolderIsItsFilesInTheOrderOfTheirPaths) {
  write("texts/b.txt", "b");
  write("texts/a/z.txt", "z");
  write("texts/a.txt", "a");
  write("texts/.hidden", "h");
  write("texts/.git/c.txt", "c");
  std::filesystem::create_symlink(folder_ / "texts/b.txt", folder_ / "texts/c.txt");
  std::filesystem::create_directory_symlink(folder_ / "texts", folder_ / "texts/round");
  EXPECT_THAT(documents_of(list_sources({(folder_ / "texts").string()}, {})),
              ElementsAre("a", "z", "b", "b"));
}

TEST_F(Sources, FormsFollowFromNames) {
  for (const char* const name : {"a.jsonl", "a.ndjson", "a.json", "a.jsonl.gz", "a.jsonl.zst"}) {
    EXPECT_EQ(form_of(name), DocumentForm::kJsonLines) << name;
  }
  EXPECT_EQ(form_of("a.parquet"), DocumentForm::kParquet);
  for (const char* const name : {"a.txt", "a", "a.gz", "jsonl", "a.md"}) {
    EXPECT_EQ(form_of(name), DocumentForm::kText) << name;
  }
}

TEST_F(Sources, TextIsCutAtSeparators) {
  EXPECT_THAT(documents("a.txt", "one<|endoftext|>two\n<|endoftext|>"),
              ElementsAre("one", "two\n", ""));
  EXPECT_THAT(documents("a.txt.gz", gzipped("one<|endoftext|>two")), ElementsAre("one", "two"));
  EXPECT_THAT(documents("a.txt", "a\n\nb\n\n\nc", {.separator = "\n\n"}),
              ElementsAre("a", "b", "\nc"));
  EXPECT_THAT(documents("a.txt", "a<|endoftext|>b", {.separator = ""}),
              ElementsAre("a<|endoftext|>b"));
}

TEST_F(Sources, JsonLinesGiveTheirField) {
  EXPECT_THAT(documents("a.jsonl",
                        "{\"text\": \"a\\n\"}\r\n\n{\"id\": 1, \"text\": \"\"}\n  \n"
                        "{\"text\": \"\\u20ac\"}"),
              ElementsAre("a\n", "", "\xE2\x82\xAC"));
  EXPECT_THAT(documents("a.jsonl", "{\"story\": \"a\"}\n", {.field = "story"}), ElementsAre("a"));
  EXPECT_THAT(refused("a.jsonl", "{\"text\": \"a\"}\n{\"texts\": \"a\", \"id\": \"x\"}\n"),
              HasSubstr("a field \"text\" with the text, given an object without, in"));
  EXPECT_THAT(refused("a.jsonl", "{\"texts\": \"a\"}\n"), HasSubstr("here there is 'texts'"));
  EXPECT_THAT(refused("a.jsonl", "\n\n{\"text\": 3}\n"), HasSubstr("given 3, in"));
  EXPECT_THAT(refused("a.jsonl", "\n\n{\"text\": 3}\n"), HasSubstr("a.jsonl:3"));
  EXPECT_THAT(refused("a.json", "[{\"text\": \"a\"}]"), HasSubstr("jq -c '.[]'"));
  EXPECT_THAT(refused("a.jsonl", "{\"text\": \"a\"\n"), HasSubstr("expected JSON"));
}

TEST_F(Sources, InvalidUtf8OfJsonLinesBecomesUFFFDAndIsCounted) {
  const auto sources = list_sources({write("a.jsonl", "{\"text\": \"a\xff\xE2\x82\"}\n")}, {});
  std::string text;
  SourceReader reader(sources[0], "python3");
  const auto summary = reader.read([&](const SourceDocument& document, auto) {
    text = document.text;
    return true;
  });
  EXPECT_EQ(text, "a\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(summary->replaced_bytes, 3);
}

TEST_F(Sources, ADocumentThatIsTooLongIsNamed) {
  const SourceOptions options = {.most_document_bytes = 100};
  const std::string text = "abc<|endoftext|>" + std::string(200, 'x');
  EXPECT_THAT(refused("a.txt", text, options), HasSubstr("given a longer one, at byte 16 of"));
  EXPECT_THAT(refused("a.txt", text + "<|endoftext|>y", options), HasSubstr("--separator"));
  EXPECT_THAT(
      refused("a.jsonl", "{\"text\": \"a\"}\n{\"text\": \"" + std::string(200, 'x') + "\"}\n",
              options),
      HasSubstr("a.jsonl:2"));
}

// A separator, a line's end, a character: wherever the pieces are cut, the documents are the same.
TEST(DocumentCutter, PiecesOfAnyLengthGiveTheSameDocuments) {
  const std::string text =
      "one<|endoftext|><|endoftext|>tw<|endo<|endoftext|>gr\xC3\xBCn<|endoftext|";
  const std::vector<std::string> expected = {"one", "", "tw<|endo", "gr\xC3\xBCn<|endoftext|"};
  for (size_t length = 1; length < text.size(); ++length) {
    std::vector<std::string> found;
    std::vector<uint64_t> places;
    DocumentCutter cutter({}, "a", [&](const SourceDocument& document) {
      found.emplace_back(document.text);
      places.push_back(document.place);
      return true;
    });
    for (size_t at = 0; at < text.size(); at += length) cutter.feed(text.substr(at, length));
    cutter.finish();
    EXPECT_EQ(found, expected) << length;
    EXPECT_THAT(places, ElementsAre(0, 16, 29, 50)) << length;
  }
}

TEST(DocumentCutter, EndsWhereTheVisitorSaysSo) {
  int count = 0;
  DocumentCutter cutter({.separator = ","}, "a",
                        [&](const SourceDocument&) { return ++count < 2; });
  EXPECT_FALSE(cutter.feed("a,b,c,d"));
  EXPECT_EQ(count, 2);
}

TEST(InvalidBytes, AreThoseOfNoCharacter) {
  const std::string valid = "abc gr\xC3\xBCn \xE2\x82\xAC \xF0\x9F\x98\x80 and more than one word";
  EXPECT_EQ(count_invalid_bytes(valid), 0);
  EXPECT_EQ(count_invalid_bytes(valid + "\xff" + valid + "\xE2\x82"), 3);
  EXPECT_EQ(count_invalid_bytes("\xED\xA0\x80"), 3);  // a surrogate
}

}  // namespace
}  // namespace wavroute
