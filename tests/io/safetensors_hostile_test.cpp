// Malformed files: each is refused with a message that says what is wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <vector>

#include "io/file.h"
#include "safetensors_bytes.h"
#include "tests/temporary_folder.h"
#include "wavroute/safetensors.h"

namespace wavroute {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::little_endian;
using testing::message_of;
using ::testing::Not;
using testing::put;
using testing::safetensors_bytes;
using testing::TemporaryFolder;

struct HostileFile {
  std::string name;     // of the case
  std::string bytes;    // of the file
  std::string message;  // part of the expected message
};

// How the test framework prints a case.
void PrintTo(const HostileFile& file, std::ostream* out) { *out << file.name; }

// One tensor 'x' of 4 data bytes, its fields given as JSON.
std::string one_tensor(const std::string& fields) {
  return safetensors_bytes(R"({"x":{)" + fields + "}}", "data");
}

// Two U8 tensors with these data_offsets, of the sizes in their shapes, before `data`.
std::string two_tensors(const std::string& first, const std::string& second,
                        const std::string& data, int first_size = 2, int second_size = 2) {
  const auto tensor = [](int size, const std::string& offsets) {
    return R"({"dtype":"U8","shape":[)" + std::to_string(size) + R"(],"data_offsets":[)" + offsets +
           "]}";
  };
  return safetensors_bytes(
      R"({"x":)" + tensor(first_size, first) + R"(,"y":)" + tensor(second_size, second) + "}",
      data);
}

std::string repeat(const std::string& text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

std::vector<HostileFile> framing_cases() {
  return {
      {"Empty", "", "expected at least 8 bytes, given 0"},
      {"SevenBytes", std::string(7, '\0'), "expected at least 8 bytes, given 7"},
      {"NoHeader", little_endian(0), "expected '{'"},
      {"HeaderTooLong", little_endian(100'000'001) + "{}", "at most 100000000 bytes"},
      {"HeaderLengthWraps", little_endian(~0ULL - 3) + "{}", "at most 100000000 bytes"},
      {"HeaderPastTheEnd", little_endian(3) + "{}", "expected a header of 3 bytes"},
      {"NoJson", safetensors_bytes("{]", ""), "given none at its byte 2"},
      {"CutJson", safetensors_bytes(R"({"x":{"dtype")", ""), "expected JSON"},
      {"Behind", safetensors_bytes("{} {}", ""), "expected JSON"},
      {"ZeroByte", safetensors_bytes(std::string("{}\0#", 4), ""), "zero byte"},
      {"NotUtf8", safetensors_bytes("{\"\xff\":{}}", ""), "expected JSON"},
      {"List", safetensors_bytes("[]", ""), "expected '{'"},
      {"LeadingSpace", safetensors_bytes(" {}", ""), "expected '{'"},
      {"DeepLists", safetensors_bytes(R"({"x":)" + repeat("[", 1'000'000), ""), "given a list"},
      {"DeepObjects", safetensors_bytes(repeat(R"({"x":)", 1'000'000), ""), "'x': expected dtype"},
      {"DeepShape", one_tensor(R"("shape":)" + repeat("[", 1'000'000)), "given a list"},
  };
}

std::vector<HostileFile> field_cases() {
  const std::string u8 = R"("dtype":"U8",)", shape = R"("shape":[4],)",
                    offsets = R"("data_offsets":[0,4])";
  return {
      {"TensorIsNoObject", safetensors_bytes(R"({"x":3})", ""), "expected an object"},
      {"UnknownType", one_tensor(R"("dtype":"F8",)" + shape + offsets), "dtype, given 'F8'"},
      {"TypeIsNumber", one_tensor(R"("dtype":3,)" + shape + offsets), "expected a string as dtype"},
      {"NoType", one_tensor(shape + offsets), "expected dtype, given none"},
      {"NoShape", one_tensor(u8 + offsets), "expected shape, given none"},
      {"NoOffsets", one_tensor(u8 + R"("shape":[4])"), "expected data_offsets, given none"},
      {"ShapeIsString", one_tensor(u8 + R"("shape":"4",)" + offsets), "expected a list as shape"},
      {"NegativeShape", one_tensor(u8 + R"("shape":[-4],)" + offsets), "negative number"},
      {"FractionInShape", one_tensor(u8 + R"("shape":[4.0],)" + offsets), "no integer"},
      {"BooleanInShape", one_tensor(u8 + R"("shape":[true],)" + offsets), "a boolean"},
      {"NullInShape", one_tensor(u8 + R"("shape":[null],)" + offsets), "given null"},
      {"HugeShape", one_tensor(u8 + R"("shape":[9223372036854775808],)" + offsets),
       "a number beyond 63 bits"},
      {"HugeOffset", one_tensor(u8 + shape + R"("data_offsets":[0,18446744073709551615])"),
       "in data_offsets, given a number beyond 63 bits"},
      {"VastShape", one_tensor(u8 + R"("shape":[99999999999999999999],)" + offsets), "no integer"},
      {"ProductOverflows", one_tensor(u8 + R"("shape":[4294967296,4294967296],)" + offsets),
       "overflows"},
      {"BytesOverflow", one_tensor(R"("dtype":"F64","shape":[2305843009213693952],)" + offsets),
       "overflows"},
      {"OneOffset", one_tensor(u8 + shape + R"("data_offsets":[4])"), "2 data_offsets, given 1"},
      {"ThreeOffsets", one_tensor(u8 + shape + R"("data_offsets":[0,4,4])"), "given 3"},
      {"UnknownField", one_tensor(u8 + shape + offsets + R"(,"y":0)"), "given 'y'"},
      {"FieldTwice", one_tensor(u8 + u8 + shape + offsets), "dtype comes twice"},
      {"NameTwice",
       safetensors_bytes(
           R"({"x":{)" + u8 + shape + offsets + R"(},"x":{)" + u8 + shape + offsets + "}}", "data"),
       "'x' comes twice"},
      {"MetadataIsString", safetensors_bytes(R"({"__metadata__":"x"})", ""), "under __metadata__"},
      {"MetadataIsNumber", safetensors_bytes(R"({"__metadata__":{"k":3}})", ""),
       "a string as metadata 'k'"},
      {"MetadataIsNested", safetensors_bytes(R"({"__metadata__":{"k":{}}})", ""),
       "a string as metadata 'k'"},
      {"MetadataTwice", safetensors_bytes(R"({"__metadata__":{"k":"","k":""}})", ""), "twice"},
  };
}

std::vector<HostileFile> layout_cases() {
  return {
      {"Backwards", two_tensors("2,0", "2,4", "data"), "run backwards"},
      {"Overlap", two_tensors("0,2", "1,3", "data"), "'y': expected its data at byte 2, given 1"},
      {"SameBytes", two_tensors("0,2", "0,2", "da"), "overlaps"},
      {"Hole", two_tensors("0,2", "3,5", "data1"), "a hole"},
      {"HoleAtTheStart", two_tensors("1,3", "3,5", "data1"), "'x': expected its data at byte 0"},
      {"PastTheEnd", two_tensors("0,2", "2,4", "dat"), "end by byte 3, given 4"},
      {"FarPastTheEnd", two_tensors("0,2", "2,9223372036854775807", "data"), "end by byte 4"},
      {"BytesBehind", two_tensors("0,2", "2,4", "data+"), "4 bytes of tensors, given 5 bytes"},
      {"NoTensorsButData", safetensors_bytes("{}", "data"), "0 bytes of tensors, given 4"},
      {"TooFewBytes", two_tensors("0,2", "2,4", "data", 2, 3), "'y': expected 3 bytes for U8 [3]"},
      {"TooManyBytes", two_tensors("0,2", "2,4", "data", 1, 2), "'x': expected 1 bytes"},
      {"EmptyButNot", two_tensors("0,0", "0,4", "data", 1, 4), "'x': expected 1 bytes"},
  };
}

class HostileSafetensors : public ::testing::TestWithParam<HostileFile> {};

TEST_P(HostileSafetensors, IsRefusedWithTheReasonAndTheFile) {
  const TemporaryFolder folder;
  put(folder / "f", GetParam().bytes);
  EXPECT_THAT(message_of<UserError>([&] { SafetensorsFile{folder / "f"}; }),
              AllOf(HasSubstr(GetParam().message), HasSubstr((folder / "f").string())));
}

std::string case_name(const ::testing::TestParamInfo<HostileFile>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(Framing, HostileSafetensors, ::testing::ValuesIn(framing_cases()),
                         case_name);
INSTANTIATE_TEST_SUITE_P(Fields, HostileSafetensors, ::testing::ValuesIn(field_cases()), case_name);
INSTANTIATE_TEST_SUITE_P(Layout, HostileSafetensors, ::testing::ValuesIn(layout_cases()),
                         case_name);

TEST(HostileSafetensorsName, ReachesTheTerminalWithoutControlCharactersAndCutShort) {
  const TemporaryFolder folder;
  const std::string name = R"(\u001b[2J\n)" + std::string(10'000, 'x');
  put(folder / "f", safetensors_bytes(R"({")" + name + R"(":3})", ""));
  const std::string message = message_of<UserError>([&] { SafetensorsFile{folder / "f"}; });
  EXPECT_THAT(message, AllOf(HasSubstr("'\\x1b[2J\\nxxx"), Not(HasSubstr("\x1b"))));
  EXPECT_LT(message.size(), 500U);
}

// No prefix and no single changed byte of a file may cause more than a UserError.
TEST(HostileSafetensorsFile, EveryCutAndEveryFlippedHeaderByteIsReadOrRefused) {
  const TemporaryFolder folder;
  const std::string whole = two_tensors("0,2", "2,4", "data");
  for (size_t size = 0; size < whole.size(); ++size) {
    put(folder / "f", whole.substr(0, size));
    EXPECT_THROW(SafetensorsFile{folder / "f"}, UserError) << "cut to " << size;
  }
  for (size_t i = 0; i < whole.size(); ++i) {
    for (const int flip : {1, 4, 32, 128, 255}) {
      std::string changed = whole;
      changed[i] = static_cast<char>(changed[i] ^ flip);
      put(folder / "f", changed);
      try {
        const SafetensorsFile file(folder / "f");
        EXPECT_EQ(file.tensors().size(), 2U);  // a letter of a name, or a byte of data
      } catch (const UserError&) {
        EXPECT_LT(i, whole.size() - 4) << "the data has no wrong bytes";
      }
    }
  }
}

TEST(HostileSafetensorsPath, AMissingFileOrAFolderIsAUserErrorWithItsPath) {
  const TemporaryFolder folder;
  EXPECT_THAT(message_of<UserError>([&] { SafetensorsFile{folder / "none"}; }),
              HasSubstr((folder / "none").string()));
  EXPECT_THAT(message_of<UserError>([&] { SafetensorsFile{folder.path()}; }),
              HasSubstr("Is a directory"));
}

}  // namespace
}  // namespace wavroute
