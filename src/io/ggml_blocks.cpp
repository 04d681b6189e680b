#include "io/ggml_blocks.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "io/half.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

// The names of all of ggml's types, for messages: those without a name are no longer used.
constexpr std::array<std::string_view, 40> kNames = {
    "F32",     "F16",    "Q4_0",    "Q4_1",  "",       "",      "Q5_0",  "Q5_1",
    "Q8_0",    "Q8_1",   "Q2_K",    "Q3_K",  "Q4_K",   "Q5_K",  "Q6_K",  "Q8_K",
    "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS",
    "I8",      "I16",    "I32",     "I64",   "F64",    "IQ1_M", "BF16",  "",
    "",        "",       "TQ1_0",   "TQ2_0", "",       "",      "",      "MXFP4"};

constexpr int64_t kBlock = 32, kSuperBlock = 256;

uint16_t bits_at(const uint8_t* at) {
  return static_cast<uint16_t>(at[0] | static_cast<uint16_t>(at[1]) << 8);
}
float half_at(const uint8_t* at) { return half_to_float(bits_at(at)); }

uint32_t word_at(const uint8_t* at) {
  uint32_t word = 0;
  for (int i = 3; i >= 0; --i) word = word << 8 | at[i];
  return word;
}

// ---- blocks of 32: a scale, a minimum for the _1 types, the fifth bits, the lower four ----------

void read_q4_0(const uint8_t* at, float* out) {
  const float d = half_at(at);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>((at[2 + i] & 15) - 8);
    out[16 + i] = d * static_cast<float>((at[2 + i] >> 4) - 8);
  }
}

void read_q4_1(const uint8_t* at, float* out) {
  const float d = half_at(at), m = half_at(at + 2);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(at[4 + i] & 15) + m;
    out[16 + i] = d * static_cast<float>(at[4 + i] >> 4) + m;
  }
}

void read_q5_0(const uint8_t* at, float* out) {
  const float d = half_at(at);
  const uint32_t fifth = word_at(at + 2);
  const uint8_t* low = at + 6;
  for (int i = 0; i < 16; ++i) {
    const auto a = static_cast<int>((low[i] & 15U) | (fifth >> i & 1U) << 4);
    const auto b = static_cast<int>((low[i] >> 4U) | (fifth >> (i + 16) & 1U) << 4);
    out[i] = d * static_cast<float>(a - 16);
    out[16 + i] = d * static_cast<float>(b - 16);
  }
}

void read_q5_1(const uint8_t* at, float* out) {
  const float d = half_at(at), m = half_at(at + 2);
  const uint32_t fifth = word_at(at + 4);
  const uint8_t* low = at + 8;
  for (int i = 0; i < 16; ++i) {
    const auto a = static_cast<int>((low[i] & 15U) | (fifth >> i & 1U) << 4);
    const auto b = static_cast<int>((low[i] >> 4U) | (fifth >> (i + 16) & 1U) << 4);
    out[i] = d * static_cast<float>(a) + m;
    out[16 + i] = d * static_cast<float>(b) + m;
  }
}

void read_q8_0(const uint8_t* at, float* out) {
  const float d = half_at(at);
  for (int i = 0; i < kBlock; ++i) {
    out[i] = d * static_cast<float>(static_cast<int8_t>(at[2 + i]));
  }
}

// ---- super-blocks of 256
// -------------------------------------------------------------------------

// The 6-bit scale and minimum of the j-th of eight groups, packed into 12 bytes.
struct ScaleMin {
  float scale, min;
};
ScaleMin scale_min(const uint8_t* packed, int j) {
  int scale = 0, min = 0;
  if (j < 4) {
    scale = packed[j] & 63;
    min = packed[j + 4] & 63;
  } else {
    scale = (packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4;
    min = (packed[j + 4] >> 4) | (packed[j] >> 6) << 4;
  }
  return {static_cast<float>(scale), static_cast<float>(min)};
}

// 4 bits a number and, where `fifth` isn't null, one more of 32 bytes, a bit of each for every
// group.
void read_k(const uint8_t* at, const uint8_t* fifth, const uint8_t* low, float* out) {
  const float d = half_at(at), d_min = half_at(at + 2);
  for (int j = 0; j < 8; ++j) {
    const ScaleMin s = scale_min(at + 4, j);
    const float scale = d * s.scale, min = d_min * s.min;
    const uint8_t* bytes = low + 32 * (j / 2);
    for (int i = 0; i < 32; ++i) {
      int q = j % 2 == 0 ? bytes[i] & 15 : bytes[i] >> 4;
      if (fifth != nullptr) q |= (fifth[i] >> j & 1) << 4;
      out[32 * j + i] = scale * static_cast<float>(q) - min;
    }
  }
}

void read_q4_k(const uint8_t* at, float* out) { read_k(at, nullptr, at + 16, out); }
void read_q5_k(const uint8_t* at, float* out) { read_k(at, at + 16, at + 48, out); }

void read_q6_k(const uint8_t* at, float* out) {
  const uint8_t *low = at, *high = at + 128, *scales = at + 192;
  const float d = half_at(at + 208);
  for (int group = 0; group < 8; ++group) {  // of 32 numbers
    const int half = group / 4, quarter = group % 4;
    const uint8_t* nibbles = low + 64 * half + 32 * (quarter % 2);
    for (int i = 0; i < 32; ++i) {
      const int lower = quarter < 2 ? nibbles[i] & 15 : nibbles[i] >> 4;
      const int upper = high[32 * half + i] >> (2 * quarter) & 3;
      const float scale = d * static_cast<float>(static_cast<int8_t>(scales[2 * group + i / 16]));
      out[32 * group + i] = scale * static_cast<float>((lower | upper << 4) - 32);
    }
  }
}

// ---- plain numbers
// -------------------------------------------------------------------------------

void read_f32(const uint8_t* at, float* out) { std::memcpy(out, at, sizeof(float)); }
void read_f16(const uint8_t* at, float* out) { *out = half_at(at); }
void read_bf16(const uint8_t* at, float* out) { *out = bf16_to_float(bits_at(at)); }

using BlockReader = void (*)(const uint8_t* at, float* out);
BlockReader reader_of(GgmlType type) {
  switch (type) {
    case GgmlType::kF32:
      return read_f32;
    case GgmlType::kF16:
      return read_f16;
    case GgmlType::kBF16:
      return read_bf16;
    case GgmlType::kQ4_0:
      return read_q4_0;
    case GgmlType::kQ4_1:
      return read_q4_1;
    case GgmlType::kQ5_0:
      return read_q5_0;
    case GgmlType::kQ5_1:
      return read_q5_1;
    case GgmlType::kQ8_0:
      return read_q8_0;
    case GgmlType::kQ4_K:
      return read_q4_k;
    case GgmlType::kQ5_K:
      return read_q5_k;
    case GgmlType::kQ6_K:
      return read_q6_k;
  }
  throw Failure(expectation("a type that is read", ggml_type_name(static_cast<uint32_t>(type))));
}

void put_bits(std::vector<std::byte>& out, uint16_t bits) {
  out.push_back(static_cast<std::byte>(bits & 0xffU));
  out.push_back(static_cast<std::byte>(bits >> 8));
}

void put_q8_0(std::vector<std::byte>& out, std::span<const float> block) {
  float largest = 0;
  for (const float value : block) largest = std::max(largest, std::abs(value));
  const float d = largest / 127.0F, inverse = d == 0 ? 0.0F : 1.0F / d;
  put_bits(out, float_to_half(d));
  for (const float value : block) {
    out.push_back(static_cast<std::byte>(static_cast<int8_t>(std::round(value * inverse))));
  }
}

}  // namespace

GgmlLayout layout_of(GgmlType type) {
  switch (type) {
    case GgmlType::kF32:
      return {1, 4};
    case GgmlType::kF16:
    case GgmlType::kBF16:
      return {1, 2};
    case GgmlType::kQ4_0:
      return {kBlock, 18};
    case GgmlType::kQ4_1:
      return {kBlock, 20};
    case GgmlType::kQ5_0:
      return {kBlock, 22};
    case GgmlType::kQ5_1:
      return {kBlock, 24};
    case GgmlType::kQ8_0:
      return {kBlock, 34};
    case GgmlType::kQ4_K:
      return {kSuperBlock, 144};
    case GgmlType::kQ5_K:
      return {kSuperBlock, 176};
    case GgmlType::kQ6_K:
      return {kSuperBlock, 210};
  }
  throw Failure(expectation("a type that is read", ggml_type_name(static_cast<uint32_t>(type))));
}

std::optional<GgmlType> ggml_type(uint32_t number) {
  for (const GgmlType type : {GgmlType::kF32, GgmlType::kF16, GgmlType::kBF16, GgmlType::kQ4_0,
                              GgmlType::kQ4_1, GgmlType::kQ5_0, GgmlType::kQ5_1, GgmlType::kQ8_0,
                              GgmlType::kQ4_K, GgmlType::kQ5_K, GgmlType::kQ6_K}) {
    if (static_cast<uint32_t>(type) == number) return type;
  }
  return std::nullopt;
}

std::string ggml_type_name(uint32_t number) {
  const bool has_name = number < kNames.size() && !kNames[number].empty();
  return has_name ? std::string(kNames[number]) : fmt::format("type {}", number);
}

void dequantize(GgmlType type, std::span<const std::byte> bytes, std::span<float> out) {
  const GgmlLayout layout = layout_of(type);
  const size_t blocks = out.size() / static_cast<size_t>(layout.numbers);
  if (bytes.size() != blocks * static_cast<size_t>(layout.bytes) ||
      out.size() % static_cast<size_t>(layout.numbers) != 0) {
    throw Failure(expectation(fmt::format("whole blocks of {} bytes", layout.bytes), bytes.size()));
  }
  const BlockReader read = reader_of(type);
  const auto* at = reinterpret_cast<const uint8_t*>(bytes.data());
  for (size_t block = 0; block < blocks; ++block) {
    read(at + block * static_cast<size_t>(layout.bytes),
         out.data() + block * static_cast<size_t>(layout.numbers));
  }
}

std::vector<std::byte> quantize(GgmlType type, std::span<const float> in) {
  const GgmlLayout layout = layout_of(type);
  std::vector<std::byte> out;
  out.reserve(in.size() / static_cast<size_t>(layout.numbers) * static_cast<size_t>(layout.bytes));
  if (type == GgmlType::kF32) {
    const auto bytes = std::as_bytes(in);
    out.assign(bytes.begin(), bytes.end());
  } else if (type == GgmlType::kF16) {
    for (const float value : in) put_bits(out, float_to_half(value));
  } else if (type == GgmlType::kBF16) {
    for (const float value : in) put_bits(out, float_to_bf16(value));
  } else if (type == GgmlType::kQ8_0 && in.size() % kBlock == 0) {
    for (size_t i = 0; i < in.size(); i += kBlock) put_q8_0(out, in.subspan(i, kBlock));
  } else {
    throw Failure(expectation("a type that is written, in whole blocks",
                              ggml_type_name(static_cast<uint32_t>(type))));
  }
  return out;
}

}  // namespace wavroute
