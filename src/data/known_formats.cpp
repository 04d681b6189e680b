#include "data/known_formats.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

namespace wavroute {
namespace {

using std::string_view_literals::operator""sv;

constexpr const char* kUnpack = "unpack it first";
constexpr const char* kUntar = "unpack it first: tar xf FILE";
constexpr const char* kExport = "write its text to a file, one document after the other";
constexpr const char* kModel =
    "this is a model, not a text; data.train takes texts and token files";

constexpr const char* kTokens =
    "data.format = \"auto\" (eval: --format auto) reads it, with the tokenizer that made it";

struct Mark {
  size_t offset;
  std::string_view bytes;
  const char* what;
  const char* hint;
};

constexpr std::array kMarks = {
    Mark{0, "\x1f\x8b"sv, "gzip data",
         "unpack it first: gunzip -k FILE; wavroute data prepare reads it as it is"},
    Mark{0, "\xfd\x37zXZ\x00"sv, "xz data", "unpack it first: unxz -k FILE"},
    Mark{0, "\x28\xb5\x2f\xfd"sv, "zstd data",
         "unpack it first: unzstd FILE; wavroute data prepare reads it as it is"},
    Mark{0, "\x04\x22\x4d\x18"sv, "lz4 data", "unpack it first: unlz4 FILE"},
    Mark{0, "PK\x03\x04"sv, "a zip archive (.zip, .npz, .pt, .docx)", kUnpack},
    Mark{0, "7z\xbc\xaf\x27\x1c"sv, "a 7-Zip archive", kUnpack},
    Mark{257, "ustar\x00"sv, "a tar archive", kUntar},
    Mark{257, "ustar  \x00"sv, "a tar archive", kUntar},
    Mark{0, "ARROW1\x00"sv, "an Arrow file", kExport},
    Mark{0, "\xff\xff\xff\xff"sv, "an Arrow stream", kExport},
    Mark{0, "\x89HDF\r\n"sv, "an HDF5 file", kExport},
    Mark{0, "SQLite format 3\x00"sv, "an SQLite database", kExport},
    Mark{0, "%PDF-"sv, "a PDF", "extract its text first: pdftotext FILE"},
    Mark{0, "\x93NUMPY"sv, "a NumPy array",
         "for token ids: numpy.load(FILE).astype('uint16').tofile('FILE.bin'), and data.format = "
         "\"tokens16\" (eval: --format tokens16)"},
    Mark{0, "\x88\xd8\x34\x01"sv, "a token file of llm.c (magic 20240520)", kTokens},
    Mark{0, "\xa1\xd9\x34\x01"sv, "a token file of llm.c (magic 20240801)", kTokens},
    Mark{0, "\xc6\xd7\x34\x01"sv, "a model of llm.c (magic 20240326)", kModel},
    Mark{0,
         "\x7f"
         "ELF"sv,
         "a program (ELF)", kUnpack},
    Mark{0, "\xff\xfe"sv, "UTF-16 text", "convert it first: iconv -f UTF-16 -t UTF-8 FILE"},
    Mark{0, "\xfe\xff"sv, "UTF-16 text", "convert it first: iconv -f UTF-16 -t UTF-8 FILE"},
};

bool is_bzip2(std::string_view content) {
  // A text may begin with "BZh9", but not with the digits of pi after it.
  return content.starts_with("BZh") && content.substr(4, 6) == "1AY&SY";
}

// A text about these formats may begin with their names.
bool is_parquet(std::string_view content) {
  return content.size() >= 12 && content.starts_with("PAR1") && content.ends_with("PAR1");
}

bool is_gguf(std::string_view content) {  // the name, then a small version number in 32 bits
  return content.starts_with("GGUF") && content.substr(5, 3) == "\x00\x00\x00"sv;
}

// A safetensors file begins with the length of its JSON header.
bool is_safetensors(std::string_view content) {
  uint64_t length = 0;
  if (content.size() < sizeof length + 2) return false;
  std::memcpy(&length, content.data(), sizeof length);
  return length >= 2 && length <= content.size() - sizeof length && content.substr(8, 1) == "{" &&
         length < (uint64_t{1} << 32);
}

// Bytes that are rare in text: control characters other than those for layout.
bool is_control(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return (byte < 0x20 && !(byte >= '\b' && byte <= '\r') && byte != 0x1b) || byte == 0x7f;
}

// What content that is no text may be: ids below 2^20 leave the upper 12 of 32 bits empty.
const char* looks_like(std::string_view content) {
  size_t small = 0;
  const size_t words = std::min<size_t>(content.size(), size_t{1} << 16) / sizeof(uint32_t);
  for (size_t i = 0; i < words; ++i) {
    uint32_t word = 0;
    std::memcpy(&word, content.data() + i * sizeof word, sizeof word);
    if (word < (1U << 20)) ++small;
  }
  if (content.size() % 4 == 0 && words > 0 && small * 10 >= words * 9) {
    return "what looks like 32-bit token ids";
  }
  return content.size() % 2 == 0 ? "what looks like 16-bit token ids" : "binary data";
}

}  // namespace

std::optional<NotText> known_format(std::string_view content) {
  for (const Mark& mark : kMarks) {
    if (content.size() >= mark.offset && content.substr(mark.offset).starts_with(mark.bytes)) {
      return NotText{mark.what, mark.hint};
    }
  }
  if (is_bzip2(content)) return NotText{"bzip2 data", "unpack it first: bunzip2 -k FILE"};
  if (is_parquet(content))
    return NotText{"a Parquet file",
                   "wavroute data prepare reads it, where its name ends in .parquet"};
  if (is_gguf(content)) return NotText{"a GGUF model", kModel};
  if (is_safetensors(content)) return NotText{"a safetensors file", kModel};
  return std::nullopt;
}

std::optional<NotText> not_text(std::string_view content) {
  if (auto known = known_format(content)) return known;
  constexpr size_t kSample = size_t{1} << 16;
  size_t controls = 0, seen = 0;
  const size_t half = content.size() / 2, end = content.size() - std::min(content.size(), kSample);
  for (const size_t begin : {size_t{0}, half, end}) {
    const std::string_view part = content.substr(begin, kSample);
    controls += static_cast<size_t>(std::count_if(part.begin(), part.end(), is_control));
    seen += part.size();
  }
  // Zero bytes between documents and the odd stray byte are still text.
  if (controls * 50 < seen || controls < 2) return std::nullopt;
  return NotText{looks_like(content),
                 "raw token ids, as nanoGPT writes them: data.format = \"tokens16\" (or "
                 "\"tokens32\") with the tokenizer that made them; any bytes at all: data.format = "
                 "\"bytes\" (eval: --format)"};
}

}  // namespace wavroute
