#include "wavroute/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "io/file.h"
#include "safetensors_bytes.h"
#include "tests/temporary_folder.h"

namespace wavroute {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::get;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::message_of;
using testing::names_in;
using testing::put;
using testing::safetensors_bytes;
using testing::TemporaryFolder;

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Two tensors whose order in the header is not that of their bytes, a scalar, an empty one.
const std::string kHeader =
    R"({"__metadata__":{"format":"pt"},"b":{"dtype":"I16","shape":[2],"data_offsets":[12,16]},)"
    R"( "a":{"data_offsets":[4,12],"shape":[1,2],"dtype":"F32"},)"
    R"("none":{"dtype":"U8","shape":[0,7],"data_offsets":[4,4]},)"
    R"("one":{"dtype":"U32","shape":[],"data_offsets":[0,4]}}   )";

TEST(SafetensorsFile, ReadsAFileMadeByHand) {
  const TemporaryFolder folder;
  // 1.5f and -2.0f are 0x3fc00000 and 0xc0000000.
  const std::string floats("\x00\x00\xc0\x3f\x00\x00\x00\xc0", 8);
  put(folder / "f", safetensors_bytes(kHeader, "1234" + floats + "5678"));
  const SafetensorsFile file(folder / "f");
  EXPECT_THAT(file.names(), ElementsAre("a", "b", "none", "one"));
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"format", "pt"}}));
  const TensorInfo* a = file.find("a");
  ASSERT_NE(a, nullptr);
  EXPECT_EQ(a->dtype, Dtype::kF32);
  EXPECT_THAT(a->shape, ElementsAre(1, 2));
  float values[2];
  ASSERT_EQ(a->bytes.size(), sizeof values);
  std::memcpy(values, a->bytes.data(), sizeof values);
  EXPECT_THAT(values, ElementsAre(1.5f, -2.0f));
  EXPECT_EQ(text_of(file.find("b")->bytes), "5678");
  EXPECT_EQ(text_of(file.find("one")->bytes), "1234");
  EXPECT_THAT(file.find("one")->shape, IsEmpty());
  EXPECT_THAT(file.find("none")->bytes, IsEmpty());
  EXPECT_EQ(file.find("c"), nullptr);
}

TEST(SafetensorsFile, ReadsEveryTypeByItsNameAndSize) {
  const std::vector<std::pair<std::string, size_t>> types = {
      {"F64", 8}, {"F32", 4}, {"F16", 2},  {"BF16", 2}, {"I64", 8}, {"I32", 4}, {"I16", 2},
      {"I8", 1},  {"U8", 1},  {"BOOL", 1}, {"U16", 2},  {"U32", 4}, {"U64", 8}};
  const TemporaryFolder folder;
  for (const auto& [name, size] : types) {
    const std::string end = std::to_string(3 * size);
    std::string header = R"({"x":{"dtype":")";
    header.append(name).append(R"(","shape":[3],"data_offsets":[0,)").append(end).append("]}}");
    put(folder / "f", safetensors_bytes(header, std::string(3 * size, 'x')));
    const SafetensorsFile file(folder / "f");
    EXPECT_EQ(dtype_name(file.find("x")->dtype), name);
    EXPECT_EQ(dtype_size(file.find("x")->dtype), size);
  }
}

TEST(SafetensorsFile, ReadsAFileWithoutTensors) {
  const TemporaryFolder folder;
  put(folder / "f", safetensors_bytes("{}", ""));
  EXPECT_THAT(SafetensorsFile(folder / "f").names(), IsEmpty());
}

TEST(SafetensorsFile, SpansStayValidWhenTheFileObjectMoves) {
  const TemporaryFolder folder;
  put(folder / "f",
      safetensors_bytes(R"({"x":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})", "abc"));
  SafetensorsFile file(folder / "f");
  const auto bytes = file.find("x")->bytes;
  const SafetensorsFile moved = std::move(file);
  EXPECT_EQ(text_of(bytes), "abc");
  EXPECT_EQ(moved.find("x")->bytes.data(), bytes.data());
}

TEST(SafetensorsFile, RequireSaysWhatIsMissingOrOfAnotherTypeOrShape) {
  const TemporaryFolder folder;
  put(folder / "f",
      safetensors_bytes(R"({"x":{"dtype":"F16","shape":[3,2],"data_offsets":[0,12]}})",
                        std::string(12, 'x')));
  const SafetensorsFile file(folder / "f");
  const std::vector<int64_t> shape = {3, 2}, turned = {2, 3};
  EXPECT_EQ(&file.require("x", Dtype::kF16, shape), file.find("x"));
  const std::string path = (folder / "f").string();
  EXPECT_THAT(message_of<UserError>([&] { (void)file.require("y", Dtype::kF16, shape); }),
              AllOf(HasSubstr("expected tensor 'y' of F16 [3,2], given none"), HasSubstr(path)));
  EXPECT_THAT(
      message_of<UserError>([&] { (void)file.require("x", Dtype::kF32, shape); }),
      AllOf(HasSubstr("expected tensor 'x' of F32 [3,2], given F16 [3,2]"), HasSubstr(path)));
  EXPECT_THAT(message_of<UserError>([&] { (void)file.require("x", Dtype::kF16, turned); }),
              HasSubstr("expected tensor 'x' of F16 [2,3], given F16 [3,2]"));
}

TEST(WriteSafetensors, WritesTheseBytes) {
  const TemporaryFolder folder;
  const std::string wide = "12345678", b = "abcd", a = "wxyz", half = "hi";
  // Wide types first, then by name, whatever order they come in.
  const FileDigest digest = write_safetensors(folder / "f",
                                              {{"half", Dtype::kBF16, {1, 1}, bytes_of(half)},
                                               {"b", Dtype::kF32, {}, bytes_of(b)},
                                               {"wide", Dtype::kI64, {1}, bytes_of(wide)},
                                               {"a", Dtype::kF32, {1}, bytes_of(a)}},
                                              {{"z", "\"quoted\""}, {"format", "pt"}});
  std::string header = R"({"__metadata__":{"format":"pt","z":"\"quoted\""},)"
                       R"("wide":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},)"
                       R"("a":{"dtype":"F32","shape":[1],"data_offsets":[8,12]},)"
                       R"("b":{"dtype":"F32","shape":[],"data_offsets":[12,16]},)"
                       R"("half":{"dtype":"BF16","shape":[1,1],"data_offsets":[16,18]}})";
  while (header.size() % 8 != 0) header += ' ';
  const std::string expected = safetensors_bytes(header, "12345678wxyzabcdhi");
  EXPECT_EQ(get(folder / "f"), expected);
  EXPECT_EQ(digest.bytes, expected.size());
  EXPECT_EQ(digest.sha256, sha256_hex(expected));
  EXPECT_THAT(names_in(folder.path()), ElementsAre("f"));
}

TEST(WriteSafetensors, GivesTheSameBytesForAnyOrderOfTheTensors) {
  const TemporaryFolder folder;
  const std::string data(8, 'x');
  std::vector<NamedTensor> tensors = {{"d", Dtype::kI64, {1}, bytes_of(data)},
                                      {"c", Dtype::kF64, {1}, bytes_of(data)},
                                      {"b", Dtype::kF32, {2}, bytes_of(data)},
                                      {"a", Dtype::kBool, {8}, bytes_of(data)}};
  const FileDigest first = write_safetensors(folder / "f", tensors);
  std::ranges::reverse(tensors);
  EXPECT_EQ(write_safetensors(folder / "f", tensors).sha256, first.sha256);
}

TEST(WriteSafetensors, AFileReadBackIsTheSame) {
  const TemporaryFolder folder;
  const std::string data = "0123456789ab";
  const std::map<std::string, std::string> metadata = {{"scheme", "wav"}, {"é", "\n\t"}};
  write_safetensors(folder / "f",
                    {{"model.norm.weight", Dtype::kF32, {3}, bytes_of(data)},
                     {"with \"quotes\" \\", Dtype::kBF16, {2, 3}, bytes_of(data)},
                     {"empty", Dtype::kF32, {2, 0}, {}}},
                    metadata);
  const SafetensorsFile file(folder / "f");
  EXPECT_EQ(file.metadata(), metadata);
  EXPECT_THAT(file.names(), ElementsAre("empty", "model.norm.weight", "with \"quotes\" \\"));
  EXPECT_EQ(text_of(file.find("with \"quotes\" \\")->bytes), data);
  EXPECT_THAT(file.find("empty")->shape, ElementsAre(2, 0));
  // The data begins at a multiple of 8, and tensors of wide types come first: all are aligned.
  EXPECT_EQ(reinterpret_cast<uintptr_t>(file.find("model.norm.weight")->bytes.data()) % 8, 0U);
}

TEST(WriteSafetensors, RefusesBytesThatDoNotMatchNamesThatRepeatAndTextThatIsNoUtf8) {
  const TemporaryFolder folder;
  const std::string data = "0123";
  const auto write = [&](std::vector<NamedTensor> tensors) {
    return message_of<Failure>([&] { write_safetensors(folder / "f", std::move(tensors)); });
  };
  EXPECT_THAT(write({{"x", Dtype::kF32, {2}, bytes_of(data)}}),
              HasSubstr("the bytes of F32 [2] for tensor 'x', given 4"));
  EXPECT_THAT(write({{"x", Dtype::kF32, {-1}, bytes_of(data)}}), HasSubstr("given 4"));
  EXPECT_THAT(
      write({{"x", Dtype::kF32, {1}, bytes_of(data)}, {"x", Dtype::kU8, {4}, bytes_of(data)}}),
      HasSubstr("each tensor name once, given 'x' twice"));
  EXPECT_THAT(write({{"__metadata__", Dtype::kF32, {1}, bytes_of(data)}}),
              HasSubstr("'__metadata__' twice"));
  EXPECT_THAT(write({{"\xff", Dtype::kF32, {1}, bytes_of(data)}}), HasSubstr("UTF-8"));
  EXPECT_THAT(names_in(folder.path()), IsEmpty());
}

}  // namespace
}  // namespace wavroute
