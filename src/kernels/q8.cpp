#include "kernels/q8.h"

#include "kernels/kernels.h"
#include "kernels/sweep.h"
#include "kernels/token_groups.h"

namespace wavroute::kernels::WAVROUTE_ISA {
namespace {

// ---- scales ----

// To the nearest, halves to even.
uint16_t to_fp16(float x) {
#if defined(__F16C__)
  return static_cast<uint16_t>(_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if (bits >= 0x47800000U) return 0x7C00;  // 65536 and more: infinite
  if (bits < 0x38800000U) {                // below 2^-14: a multiple of 2^-24
    const float shifted = x + 0.5F;        // whose unit in the last place is 2^-24
    std::memcpy(&bits, &shifted, sizeof bits);
    return static_cast<uint16_t>(bits - 0x3F000000U);
  }
  const uint32_t rounded = bits + 0xFFFU + (bits >> 13 & 1U);
  return static_cast<uint16_t>((rounded - 0x38000000U) >> 13);
#endif
}

// ---- rounding ----

void quantise(const Q8Row& row) {
  for (int64_t block = 0; block < row.columns / kQ8Block; ++block) {
    const float* x = row.from + block * kQ8Block;
    float largest = 0.0F;
    for (int64_t i = 0; i < kQ8Block; ++i) {
      const float size = __builtin_fabsf(x[i]);
      largest = size > largest ? size : largest;
    }
    const float scale = largest / 127.0F;
    row.scales[block] = to_fp16(scale);
    const float inverse = row.scales[block] != 0 ? 1.0F / scale : 0.0F;
    for (int64_t i = 0; i < kQ8Block; ++i) {
      row.quants[block * kQ8Block + i] = static_cast<int8_t>(__builtin_roundf(x[i] * inverse));
    }
  }
}

// Of numbers that are not negative, by their bits: a NaN is the largest.
float largest_size(const IntVec& bits) {
  int32_t most = 0;
  for (int i = 0; i < kLanes; ++i) most = bits[i] > most ? bits[i] : most;
  float size;
  std::memcpy(&size, &most, sizeof size);
  return size;
}

using ByteVec = int8_t __attribute__((vector_size(kLanes)));
constexpr int kVectorsOfBlock = kQ8Block / kLanes;

template <typename C>
void round_block(const C* from, int8_t* quants, float* scale) {
  constexpr float kSmallest = 0x1p-100F;  // below, 127 over the largest could be infinite
  constexpr float kRound = 12582912.0F;   // 1.5 * 2^23: adding it rounds to an integer
  Vec x[kVectorsOfBlock];
  IntVec sizes{};
  for (int v = 0; v < kVectorsOfBlock; ++v) {
    x[v] = load(from + v * kLanes);
    const IntVec bits = reinterpret_cast<IntVec>(x[v]) & 0x7FFFFFFF;
    sizes = bits > sizes ? bits : sizes;
  }
  const float largest = largest_size(sizes);
  const bool vanishes = largest < kSmallest;
  *scale = vanishes ? 0.0F : largest / 127.0F;
  const float inverse = vanishes ? 0.0F : 127.0F / largest;
  for (int v = 0; v < kVectorsOfBlock; ++v) {
    const IntVec rounded = reinterpret_cast<IntVec>(x[v] * inverse + kRound);  // quant: low 8 bits
    const ByteVec bytes = __builtin_convertvector(rounded, ByteVec);
    std::memcpy(quants + v * kLanes, &bytes, sizeof bytes);
  }
}

template <typename C>
void round_tokens(const Q8Tokens<C>& t, int64_t begin, int64_t end) {
  for (int64_t token = begin; token < end; ++token) {
    for (int64_t block = 0; block < t.columns / kQ8Block; ++block) {
      const int64_t column = block * kQ8Block;
      round_block(t.from[token] + column, t.quants[token] + column, t.scales[token] + block);
    }
  }
}

// ---- products of integers ----
//
// A group is what a vector of bytes holds: kGroup blocks. dots() sums the products of a group's
// quants lane by lane, each lane within one block. Bytes are multiplied as unsigned by signed ones:
// |x| by w with the sign of x. Two such products are at most 2 * 127^2 < 2^15.

#if defined(__AVX512F__)

constexpr int64_t kGroup = 2;
struct Token {
  __m512i sizes;
  __mmask64 negative;
};
// `whole`: both blocks of the group are there, else the first; the rest is zeros.
__m512i load_bytes(const int8_t* p, bool whole) {
  return whole ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi8(0xFFFFFFFF, p);
}
Token load_token(const int8_t* p, bool whole) {
  const __m512i x = load_bytes(p, whole);
  return {_mm512_abs_epi8(x), _mm512_movepi8_mask(x)};
}
IntVec dots(__m512i w, const Token& x) {
  const __m512i signed_w = _mm512_mask_sub_epi8(w, x.negative, _mm512_setzero_si512(), w);
#if defined(__AVX512VNNI__)
  return reinterpret_cast<IntVec>(_mm512_dpbusd_epi32(_mm512_setzero_si512(), x.sizes, signed_w));
#else
  const __m512i pairs = _mm512_maddubs_epi16(x.sizes, signed_w);
  return reinterpret_cast<IntVec>(_mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
#endif
}
// A number for each block, in all lanes of the block.
Vec spread(float first, float second) {
  return reinterpret_cast<Vec>(
      _mm512_insertf32x8(_mm512_set1_ps(first), _mm256_set1_ps(second), 1));
}

#elif defined(__AVX2__)

constexpr int64_t kGroup = 1;
struct Token {
  __m256i sizes, signs;
};
__m256i load_bytes(const int8_t* p, bool) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
Token load_token(const int8_t* p, bool whole) {
  const __m256i x = load_bytes(p, whole);
  return {_mm256_abs_epi8(x), x};
}
IntVec dots(__m256i w, const Token& x) {
  const __m256i pairs = _mm256_maddubs_epi16(x.sizes, _mm256_sign_epi8(w, x.signs));
  return reinterpret_cast<IntVec>(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

#else

constexpr int64_t kGroup = 1;
using Token = const int8_t*;
const int8_t* load_bytes(const int8_t* p, bool) { return p; }
Token load_token(const int8_t* p, bool) { return p; }
IntVec dots(const int8_t* w, Token x) {
  int32_t sum = 0;
  for (int64_t i = 0; i < kQ8Block; ++i) sum += w[i] * x[i];
  return IntVec{sum};
}

#endif

#if defined(__AVX512F__)
Vec token_scales(const float* scales, bool whole) {
  return spread(scales[0], whole ? scales[1] : 0.0F);
}
Vec row_scales(const uint16_t* scales, bool whole) {
  uint32_t two = scales[0];
  if (whole) std::memcpy(&two, scales, sizeof two);
  const __m128 wide = _mm_cvtph_ps(_mm_cvtsi32_si128(static_cast<int>(two)));
  const __m512i block = _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
  return reinterpret_cast<Vec>(
      _mm512_maskz_permutexvar_ps(0xFFFF, block, _mm512_castps128_ps512(wide)));
}
#else
Vec token_scales(const float* scales, bool) { return broadcast(*scales); }
// Of an fp16 number that is not negative, infinite or NaN; also of a subnormal one.
Vec row_scales(const uint16_t* scales, bool) {
  const uint32_t bits = static_cast<uint32_t>(*scales) << 13;
  float scaled;
  std::memcpy(&scaled, &bits, sizeof scaled);
  return broadcast(scaled * 0x1p112F);
}
#endif

// Calls body(first block, whether the group is whole) for the groups of a row.
template <typename Body>
void for_groups(int64_t blocks, Body body) {
  int64_t block = 0;
  for (; block + kGroup <= blocks; block += kGroup) body(block, true);
  if (block < blocks) body(block, false);
}

// ---- products ----

// A row by kTokens tokens, whose sums stay in registers. Rows are taken one by one, so that a
// matrix is read from beginning to end.
template <int kTokens, typename C>
void row_products(const Q8Products<C>& p, int64_t row, int64_t token) {
  const int8_t* quants = p.w.quants[row];
  const uint16_t* scales = p.w.scales[row];
  Vec sums[kTokens] = {};
  for_groups(p.inputs / kQ8Block, [&](int64_t block, bool whole) {
    const auto w = load_bytes(quants + block * kQ8Block, whole);
    const Vec scale = row_scales(scales + block, whole);
    for (int t = 0; t < kTokens; ++t) {
      const Token x = load_token(p.x[token + t] + block * kQ8Block, whole);
      const Vec of_both = scale * token_scales(p.x_scales[token + t] + block, whole);
      sums[t] = fma(__builtin_convertvector(dots(w, x), Vec), of_both, sums[t]);
    }
  });
  store_products(p, row, token, sums);
}

template <typename C>
void products(const Q8Products<C>& p, int64_t begin, int64_t end) {
  for_token_groups<64>(begin, end, p.tokens,
                       [&]<int n>(int64_t row, int64_t token) { row_products<n>(p, row, token); });
}

template <typename C>
constexpr Q8ProductKernels<C> kTable = {round_tokens<C>, products<C>};

}  // namespace

extern const Q8Kernels q8_kernels;
const Q8Kernels q8_kernels = {quantise, {kTable<float>, kTable<Bf16>}};

}  // namespace wavroute::kernels::WAVROUTE_ISA
