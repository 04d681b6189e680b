#include "kernels/cuda/heads.h"

#include "kernels/cuda/row.h"

namespace wavroute::kernels::cuda {
namespace {

constexpr int kThreads = 256;

template <typename C>
WAVROUTE_DEVICE C* at_head(const Heads<C>& heads, int64_t b, int64_t t, int64_t h) {
  return heads.at + b * heads.sequence + t * heads.token + h * heads.head;
}

// A thread takes n pairs of a head: columns c and c + w / 2 on.
template <typename C, int n>
WAVROUTE_KERNEL rotate_pairs(RotateHeads<C> r, int64_t heads, int64_t count) {
  const int64_t i = block() * kThreads + thread();
  if (i >= count) return;
  const int64_t half = r.shape.width / 2, packs = half / n, place = i / packs, c = i % packs * n;
  const int64_t token = place / heads, t = token % r.shape.length, b = token / r.shape.length;
  int64_t head = place % heads;
  const int64_t position = r.positions != nullptr ? r.positions[b] + t : t;
  const C* from = nullptr;
  C* to = nullptr;
  bool turns = true;
  if (head < r.shape.heads) {
    from = at_head(r.query, b, t, head);
    to = at_head(r.query_to, b, t, head);
  } else if (head -= r.shape.heads; head < r.shape.kv_heads) {
    from = at_head(r.key, b, t, head);
    to = at_head(r.key_to, b, position, head);
  } else {
    head -= r.shape.kv_heads;
    from = at_head(r.value, b, t, head);
    to = at_head(r.value_to, b, position, head);
    turns = false;
  }
  float first[n], second[n];
  load<n>(from + c, first);
  load<n>(from + half + c, second);
  if (turns) {
    float cos[n], sin[n];
    load<n>(r.cos + position * half + c, cos);
    load<n>(r.sin + position * half + c, sin);
    for (int k = 0; k < n; ++k) {
      const float a = first[k], s = r.back ? -sin[k] : sin[k];
      first[k] = a * cos[k] - second[k] * s;
      second[k] = second[k] * cos[k] + a * s;
    }
  }
  store<n>(first, to + c);
  store<n>(second, to + half + c);
}

// Whether packs of four numbers of each head can be read and written at once.
template <typename C>
bool takes_packs(const Heads<C>& heads) {
  return cuda::takes_packs(Grid<C>{heads.at, heads.head}) && heads.token % 4 == 0 &&
         heads.sequence % 4 == 0;
}

}  // namespace

template <typename C>
void rotate_heads(const RotateHeads<C>& r, Stream stream) {
  const AttentionShape& shape = r.shape;
  const bool in_packs = shape.width % 8 == 0 && takes_packs(r.query) && takes_packs(r.key) &&
                        takes_packs(r.value) && takes_packs(r.query_to) && takes_packs(r.key_to) &&
                        takes_packs(r.value_to) && cuda::takes_packs(r.cos) &&
                        cuda::takes_packs(r.sin);
  const int64_t heads =
      shape.heads + shape.kv_heads + (r.value_to.at != nullptr ? shape.kv_heads : 0);
  const int64_t pairs = shape.batch * shape.length * heads * (shape.width / 2);
  const int64_t count = in_packs ? pairs / 4 : pairs;
  launch(in_packs ? rotate_pairs<C, 4> : rotate_pairs<C, 1>,
         {(count + kThreads - 1) / kThreads, kThreads, 0}, stream, r, heads, count);
}

template void rotate_heads(const RotateHeads<float>&, Stream);
template void rotate_heads(const RotateHeads<Bf16>&, Stream);

}  // namespace wavroute::kernels::cuda
