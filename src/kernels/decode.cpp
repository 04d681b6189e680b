#include "kernels/decode.h"

#include "kernels/kernels.h"
#include "kernels/sweep.h"

namespace wavroute::kernels::WAVROUTE_ISA {
namespace {

// ---- products ----

// Rows of w that are multiplied at once by `vectors` rows of x: enough sums to hide the latency of
// an addition, few enough streams for the prefetcher.
constexpr int rows_beside(int vectors) { return vectors == 1 ? 8 : vectors == 2 ? 4 : 2; }
constexpr int kMostVectors = 4;

// One element's sum takes the columns in their order, a vector at a time, in every tile.
template <int kRows, int kVectors>
struct Sums {
  Vec at[kRows][kVectors] = {};
};

template <int kRows, int kVectors, typename C>
void dot_rows(const Grid<const C>& w, const Grid<const float>& x, int64_t inputs,
              Sums<kRows, kVectors>& sums) {
  sweep(inputs, [&](int64_t c, auto lanes) {
    Vec input[kVectors];
    for (int v = 0; v < kVectors; ++v) input[v] = lanes.load(x[v] + c);
    for (int r = 0; r < kRows; ++r) {
      const Vec weight = lanes.load(w[r] + c);
      for (int v = 0; v < kVectors; ++v) sums.at[r][v] = fma(weight, input[v], sums.at[r][v]);
    }
  });
}

using ByteVec = int8_t __attribute__((vector_size(kLanes)));
inline Vec load_quants(const int8_t* p) {
  ByteVec bytes;
  std::memcpy(&bytes, p, sizeof bytes);
#if defined(__AVX512F__)
  const __m512i wide = _mm512_maskz_cvtepi8_epi32(0xFFFF, reinterpret_cast<__m128i>(bytes));
  return reinterpret_cast<Vec>(_mm512_maskz_cvtepi32_ps(0xFFFF, wide));
#else
  return __builtin_convertvector(__builtin_convertvector(bytes, IntVec), Vec);
#endif
}

// Of an fp16 number that is not negative, infinite or NaN; also of a subnormal one.
inline float from_fp16(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 13;
  float scaled;
  std::memcpy(&scaled, &wide, sizeof scaled);
  return scaled * 0x1p112F;
}

template <int kRows, int kVectors>
void dot_rows(const Q8Rows& w, const Grid<const float>& x, int64_t inputs,
              Sums<kRows, kVectors>& sums) {
  for (int64_t block = 0; block < inputs / kQ8Block; ++block) {
    Vec part[kRows][kVectors] = {};
    for (int64_t c = block * kQ8Block; c < (block + 1) * kQ8Block; c += kLanes) {
      Vec input[kVectors];
      for (int v = 0; v < kVectors; ++v) input[v] = load(x[v] + c);
      for (int r = 0; r < kRows; ++r) {
        const Vec quants = load_quants(w.quants[r] + c);
        for (int v = 0; v < kVectors; ++v) part[r][v] = fma(quants, input[v], part[r][v]);
      }
    }
    for (int r = 0; r < kRows; ++r) {
      const Vec scale = broadcast(from_fp16(w.scales[r][block]));
      for (int v = 0; v < kVectors; ++v) sums.at[r][v] = fma(scale, part[r][v], sums.at[r][v]);
    }
  }
}

template <typename C>
Grid<const C> rows_from(const Grid<const C>& w, int64_t row) {
  return w.from(row);
}
Q8Rows rows_from(const Q8Rows& w, int64_t row) { return {w.quants.from(row), w.scales.from(row)}; }

template <int kRows, int kVectors, typename C, typename W>
void product_tile(const TokenProducts<C, W>& p, int64_t row, int64_t token) {
  Sums<kRows, kVectors> sums;
  dot_rows<kRows, kVectors>(rows_from(p.w, row), p.x.from(token), p.inputs, sums);
  for (int v = 0; v < kVectors; ++v) {
    float element[kLanes];
    for (int r = 0; r < kRows; ++r) element[r] = sum(sums.at[r][v]);
    store_part(p.y[token + v] + row, load(element), kRows);
  }
}

template <int kVectors, typename C, typename W>
void product_rows(const TokenProducts<C, W>& p, int64_t begin, int64_t end, int64_t token) {
  constexpr int kRows = rows_beside(kVectors) < kLanes ? rows_beside(kVectors) : kLanes;
  int64_t row = begin;
  for (; row + kRows <= end; row += kRows) product_tile<kRows, kVectors>(p, row, token);
  for (; row < end; ++row) product_tile<1, kVectors>(p, row, token);
}

// Blocks of rows stay in the L2 cache for all tokens.
template <typename C, typename W>
void products(const TokenProducts<C, W>& p, int64_t begin, int64_t end) {
  constexpr int64_t kBlock = 32;
  for (int64_t row = begin; row < end; row += kBlock) {
    const int64_t last = row + kBlock < end ? row + kBlock : end;
    int64_t token = 0;
    for (; token + kMostVectors <= p.tokens; token += kMostVectors) {
      product_rows<kMostVectors>(p, row, last, token);
    }
    for (; token + 2 <= p.tokens; token += 2) product_rows<2>(p, row, last, token);
    if (token < p.tokens) product_rows<1>(p, row, last, token);
  }
}

// ---- q8_0 ----

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

// ---- attention ----

// out = the rotation of `in` by the angles of a row of cos and sin.
template <typename From, typename To>
void rotate(const From* in, const float* cos, const float* sin, int64_t half, To* out) {
  sweep(half, [&](int64_t i, auto lanes) {
    const Vec a = lanes.load(in + i), b = lanes.load(in + half + i);
    const Vec c = lanes.load(cos + i), s = lanes.load(sin + i);
    lanes.store(out + i, fma(a, c, -(b * s)));
    lanes.store(out + half + i, fma(b, c, a * s));
  });
}

// scores[p] = key p . query, for the positions up to `last`.
template <typename C>
float make_scores(const Grid<C>& keys, const float* query, int64_t width, int64_t last,
                  float* scores) {
  float largest = -__builtin_inff();
  for (int64_t p = 0; p <= last; ++p) {
    Vec dot = zero();
    const C* key = keys[p];
    sweep(width, [&](int64_t i, auto lanes) {
      dot = fma(lanes.load(key + i), lanes.load(query + i), dot);
    });
    scores[p] = sum(dot);
    largest = scores[p] > largest ? scores[p] : largest;
  }
  return largest;
}

// scores := exp(scores - largest); returns their sum.
float exponentiate(float* scores, int64_t count, float largest) {
  Vec total = zero();
  sweep(count, [&](int64_t i, auto lanes) {
    const Vec weight = exp(lanes.load(scores + i, -__builtin_inff()) - largest);
    total += weight;
    lanes.store(scores + i, weight);
  });
  return sum(total);
}

// y = share * the sum of the values, weighted; some columns at a time, so that their sums stay in
// registers.
template <typename C>
void add_values(const Grid<C>& values, const float* weights, int64_t width, int64_t last,
                float share, C* y) {
  constexpr int kVectors = 4;
  int64_t column = 0;
  for (; column + kVectors * kLanes <= width; column += kVectors * kLanes) {
    Vec sums[kVectors] = {};
    for (int64_t p = 0; p <= last; ++p) {
      const Vec weight = broadcast(weights[p]);
      const C* value = values[p] + column;
      for (int v = 0; v < kVectors; ++v) sums[v] = fma(weight, load(value + v * kLanes), sums[v]);
    }
    for (int v = 0; v < kVectors; ++v) store(y + column + v * kLanes, sums[v] * share);
  }
  sweep(column, width, [&](int64_t i, auto lanes) {
    Vec total = zero();
    for (int64_t p = 0; p <= last; ++p) {
      total = fma(broadcast(weights[p]), lanes.load(values[p] + i), total);
    }
    lanes.store(y + i, total * share);
  });
}

template <typename C>
void keep(const CachedAttention<C>& a, int64_t begin, int64_t end) {
  const AttentionShape& s = a.shape;
  for (int64_t token = begin; token < end; ++token) {
    const int64_t sequence = token / s.length;
    const int64_t position = a.positions[sequence] + token % s.length;
    const C* key = a.qkv[token] + s.heads * s.width;
    const C* value = key + s.kv_heads * s.width;
    for (int64_t g = 0; g < s.kv_heads; ++g, key += s.width, value += s.width) {
      const int64_t head = sequence * s.kv_heads + g;
      rotate(key, a.cos[position], a.sin[position], s.width / 2, a.keys[head][position]);
      std::memcpy(a.values[head][position], value, static_cast<size_t>(s.width) * sizeof(C));
    }
  }
}

template <typename C>
void attend_unit(const CachedAttention<C>& a, int64_t unit, float* scratch) {
  const AttentionShape& s = a.shape;
  const int64_t token = unit / s.kv_heads, group = unit % s.kv_heads;
  const int64_t sequence = token / s.length, head = sequence * s.kv_heads + group;
  const int64_t position = a.positions[sequence] + token % s.length;
  const int64_t each = s.heads / s.kv_heads, first = group * each * s.width;
  const float scale = 1.0F / __builtin_sqrtf(static_cast<float>(s.width));
  float* query = scratch;
  float* scores = query + s.width;
  for (int64_t column = first; column < first + each * s.width; column += s.width) {
    rotate(a.qkv[token] + column, a.cos[position], a.sin[position], s.width / 2, query);
    sweep(s.width,
          [&](int64_t i, auto lanes) { lanes.store(query + i, lanes.load(query + i) * scale); });
    const float largest = make_scores(a.keys[head], query, s.width, position, scores);
    const float total = exponentiate(scores, position + 1, largest);
    add_values(a.values[head], scores, s.width, position, 1.0F / total, a.y[token] + column);
  }
}

template <typename C>
void attend(const CachedAttention<C>& a, int64_t begin, int64_t end, float* scratch) {
  for (int64_t unit = begin; unit < end; ++unit) attend_unit(a, unit, scratch);
}

template <typename C>
void widen(const C* from, int64_t count, float* to) {
  sweep(count, [&](int64_t i, auto lanes) { lanes.store(to + i, lanes.load(from + i)); });
}

template <typename C>
constexpr DecodeKernels<C> kTable = {products<C, Grid<const C>>, products<C, Q8Rows>, keep<C>,
                                     attend<C>, widen<C>};

}  // namespace

extern const ByType<DecodeKernels> decode_kernels;
const ByType<DecodeKernels> decode_kernels = {kTable<float>, kTable<Bf16>};

extern const Q8Kernels q8_kernels;
const Q8Kernels q8_kernels = {quantise};

}  // namespace wavroute::kernels::WAVROUTE_ISA
