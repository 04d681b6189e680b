// A block takes a token's query head and a fixed range of positions, a warp one key after the other
// of it; the parts of a head are put together by a launch of their own.
#include "kernels/cuda/heads.h"
#include "kernels/cuda/row.h"

namespace wavroute::kernels::cuda {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / kWarp;
constexpr int kColumns = 8;          // of a head, in one lane
constexpr int64_t kPositions = 128;  // of one block
int64_t part_count_of(int64_t most) { return (most + kPositions - 1) / kPositions; }

// The softmax over the keys seen so far, not divided by its sum: columns lane, lane + 32, ... of
// the mixture.
struct Softmax {
  float max = -3.402823466e38F, sum = 0.0F;
  float mixed[kColumns] = {};
  // A key with this score, and its value.
  WAVROUTE_DEVICE void add(float score, const float (&value)[kColumns]) {
    join(score, 1.0F, value);
  }
  // Another such softmax.
  WAVROUTE_DEVICE void join(float other_max, float other_sum, const float (&other)[kColumns]) {
    const float peak = other_max > max ? other_max : max;
    const float fade = exponential(max - peak), factor = exponential(other_max - peak);
    max = peak;
    sum = fused(sum, fade, factor * other_sum);
    WAVROUTE_UNROLL for (int k = 0; k < kColumns; ++k) {
      mixed[k] = fused(mixed[k], fade, factor * other[k]);
    }
  }
};

// A part of a head's softmax in memory: max, sum, the mixture [w].
WAVROUTE_DEVICE float* part_at(float* parts, int64_t index, int64_t width) {
  return parts + index * (width + 2);
}

template <typename C>
WAVROUTE_DEVICE C* at_head(const Heads<C>& heads, int64_t b, int64_t t, int64_t h) {
  return heads.at + b * heads.sequence + t * heads.token + h * heads.head;
}

// Token, head and part of a block.
struct Place {
  int64_t index, part, head, t, b;
  WAVROUTE_DEVICE Place(const AttentionShape& shape, int64_t parts)
      : index(block() / parts),
        part(block() % parts),
        head(index % shape.heads),
        t(index / shape.heads % shape.length),
        b(index / shape.heads / shape.length) {}
};

template <typename T>
WAVROUTE_DEVICE void load_columns(const T* head, int64_t width, float (&to)[kColumns]) {
  WAVROUTE_UNROLL for (int k = 0; k < kColumns; ++k) {
    const int64_t c = thread() % kWarp + k * kWarp;
    to[k] = c < width ? to_float(head[c]) : 0.0F;
  }
}

template <typename C>
WAVROUTE_KERNEL attend_parts(CachedAttention<C> a, int64_t parts) {
  const int64_t width = a.shape.width;
  const Place at(a.shape, parts);
  const int64_t end = a.positions[at.b] + at.t + 1, first = at.part * kPositions;
  if (first >= end) return;  // all threads of the block
  const int64_t last = first + kPositions < end ? first + kPositions : end;
  const int64_t group = at.head * a.shape.kv_heads / a.shape.heads;
  float query[kColumns], key[kColumns], value[kColumns];
  load_columns(at_head(a.query, at.b, at.t, at.head), width, query);
  const float scale = 1.0F / root(static_cast<float>(width));
  Softmax own;
  for (int64_t j = first + thread() / kWarp; j < last; j += kWarps) {
    load_columns(at_head(a.key, at.b, j, group), width, key);
    load_columns(at_head(a.value, at.b, j, group), width, value);
    float dot[1] = {0.0F};
    WAVROUTE_UNROLL for (int k = 0; k < kColumns; ++k) dot[0] = fused(query[k], key[k], dot[0]);
    WAVROUTE_UNROLL for (int mask = kWarp / 2; mask > 0; mask /= 2) add_from_lane(dot, mask);
    own.add(dot[0] * scale, value);
  }
  // Of the warps, in their order.
  float* const all = shared<float>();
  float* const mine = part_at(all, thread() / kWarp, width);
  if (thread() % kWarp == 0) {
    mine[0] = own.max;
    mine[1] = own.sum;
  }
  WAVROUTE_UNROLL for (int k = 0; k < kColumns; ++k) {
    const int64_t c = thread() % kWarp + k * kWarp;
    if (c < width) mine[2 + c] = own.mixed[k];
  }
  barrier();
  if (thread() >= kWarp) return;
  Softmax joined;
  for (int w = 0; w < kWarps; ++w) {
    const float* const part = part_at(all, w, width);
    load_columns(part + 2, width, value);
    joined.join(part[0], part[1], value);
  }
  float* const to = part_at(a.scratch, at.index * parts + at.part, width);
  if (thread() == 0) {
    to[0] = joined.max;
    to[1] = joined.sum;
  }
  WAVROUTE_UNROLL for (int k = 0; k < kColumns; ++k) {
    const int64_t c = thread() + k * kWarp;
    if (c < width) to[2 + c] = joined.mixed[k];
  }
}

template <typename C>
WAVROUTE_KERNEL join_parts(CachedAttention<C> a, int64_t parts) {
  const int64_t width = a.shape.width;
  const Place at(a.shape, 1);
  const int64_t used = (a.positions[at.b] + at.t) / kPositions + 1;
  Softmax joined;
  float value[kColumns];
  for (int64_t p = 0; p < used; ++p) {
    const float* const part = part_at(a.scratch, at.index * parts + p, width);
    load_columns(part + 2, width, value);
    joined.join(part[0], part[1], value);
  }
  C* const y = at_head(a.y, at.b, at.t, at.head);
  WAVROUTE_UNROLL for (int k = 0; k < kColumns; ++k) {
    const int64_t c = thread() + k * kWarp;
    if (c < width) put(joined.mixed[k] / joined.sum, y[c]);
  }
}

}  // namespace

int64_t cached_attention_floats(const AttentionShape& shape, int64_t most) {
  return shape.batch * shape.length * shape.heads * part_count_of(most) * (shape.width + 2);
}

template <typename C>
void cached_attention(const CachedAttention<C>& a, Stream stream) {
  if (a.shape.width > kColumns * kWarp) throw std::invalid_argument("heads are too wide");
  const int64_t heads = a.shape.batch * a.shape.length * a.shape.heads;
  const int64_t parts = part_count_of(a.most);
  const size_t shared_bytes = sizeof(float) * kWarps * static_cast<size_t>(a.shape.width + 2);
  launch(attend_parts<C>, {heads * parts, kThreads, shared_bytes}, stream, a, parts);
  launch(join_parts<C>, {heads, kWarp, 0}, stream, a, parts);
}

template void cached_attention(const CachedAttention<float>&, Stream);
template void cached_attention(const CachedAttention<Bf16>&, Stream);

}  // namespace wavroute::kernels::cuda
