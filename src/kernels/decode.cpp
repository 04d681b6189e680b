#include "kernels/decode.h"

#include "kernels/kernels.h"
#include "kernels/sweep.h"
#include "kernels/token_groups.h"

namespace wavroute::kernels::WAVROUTE_ISA {
namespace {

// ---- products ----

// One element's sum takes the columns in their order, a vector at a time, beside any tokens. Rows
// are taken one by one, so that a matrix is read from beginning to end: of several rows at once the
// processor fetches less in advance (docs/performance.md).
template <int kTokens, typename C>
void row_products(const TokenProducts<C>& p, int64_t row, int64_t token) {
  const C* weights = p.w[row];
  Vec sums[kTokens] = {};
  sweep(p.inputs, [&](int64_t c, auto lanes) {
    const Vec weight = lanes.load(weights + c);
    for (int t = 0; t < kTokens; ++t) {
      sums[t] = fma(weight, lanes.load(p.x[token + t] + c), sums[t]);
    }
  });
  store_products(p, row, token, sums);
}

template <typename C>
void products(const TokenProducts<C>& p, int64_t begin, int64_t end) {
  for_token_groups<32>(begin, end, p.tokens,
                       [&]<int n>(int64_t row, int64_t token) { row_products<n>(p, row, token); });
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
  const int64_t token = unit / s.heads, head = unit % s.heads, column = head * s.width;
  const int64_t sequence = token / s.length;
  const int64_t kept = sequence * s.kv_heads + head * s.kv_heads / s.heads;
  const int64_t position = a.positions[sequence] + token % s.length;
  const float scale = 1.0F / __builtin_sqrtf(static_cast<float>(s.width));
  float* query = scratch;
  float* scores = query + s.width;
  rotate(a.qkv[token] + column, a.cos[position], a.sin[position], s.width / 2, query);
  sweep(s.width,
        [&](int64_t i, auto lanes) { lanes.store(query + i, lanes.load(query + i) * scale); });
  const float largest = make_scores(a.keys[kept], query, s.width, position, scores);
  const float total = exponentiate(scores, position + 1, largest);
  add_values(a.values[kept], scores, s.width, position, 1.0F / total, a.y[token] + column);
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
constexpr DecodeKernels<C> kTable = {products<C>, keep<C>, attend<C>, widen<C>};

}  // namespace

extern const ByType<DecodeKernels> decode_kernels;
const ByType<DecodeKernels> decode_kernels = {kTable<float>, kTable<Bf16>};

}  // namespace wavroute::kernels::WAVROUTE_ISA
