// Routing over finished sources: see route.h. Tokens are worked on in small groups, so that a
// group's rows are read from memory once and stay in the L2 cache for all products with them;
// routers and sources are taken in tiles as well, so that a group's scratch is bounded.
#include "kernels/kernels.h"
#include "kernels/route.h"
#include "kernels/route_extents.h"
#include "kernels/route_tiles.h"
#include "kernels/source_numbers.h"
#include "kernels/vec.h"

namespace wavroute::kernels::WAVROUTE_ISA {
namespace {

constexpr int kParts = kRouters / kLanes;  // vectors of one scratch row
constexpr int kPair = 2 * kRouters;        // a scratch row of two numbers for every router

double mean_square(float squares, int64_t d) {
  return static_cast<double>(squares) / static_cast<double>(d);
}

template <typename R>
float sum_of_squares(const R* row, int64_t d) {
  constexpr int kChains = 4;
  Vec squares[kChains] = {};
  int64_t c = 0;
  for (; c + kChains * kLanes <= d; c += kChains * kLanes) {
    for (int n = 0; n < kChains; ++n) {
      const Vec x = load(row + c + n * kLanes);
      squares[n] = fma(x, x, squares[n]);
    }
  }
  for (; c < d; c += kLanes) {
    const Vec x = load_some(row + c, smaller(d - c, kLanes));
    squares[0] = fma(x, x, squares[0]);
  }
  return sum((squares[0] + squares[1]) + (squares[2] + squares[3]));
}

template <typename R>
void source_scalars(const SourceScalars<R>& s, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    const bool is_summary = s.summary.at == s.row.at;
    const double row = mean_square(sum_of_squares(s.row[t], s.d), s.d);
    const double summary = is_summary ? row : mean_square(sum_of_squares(s.summary[t], s.d), s.d);
    const SourceNumbers found =
        source_numbers(row, summary, is_summary, s.matching_eps, s.norm_eps);
    s.ratio[t] = found.ratio;
    s.inverse[t] = found.inverse;
  }
}

template <typename R, typename M>
struct Mixer {
  const MixFinished<R, M>& p;
  Extent x;
  const R* rows[kTokens * kSources];           // [tokens, sources] of x
  float scores[kTokens * kSources][kRouters];  // dots, then logits, then weights of the rows
  float bias[kSources][kRouters];

  // Lane of router i: a number stored as [routers, tokens].
  void take(const Grid<float>& numbers, int64_t t, float* lanes) const {
    for (int64_t i = 0; i < x.routers; ++i) lanes[i] = numbers[x.router + i][t];
  }
  void give(const float* lanes, int64_t t, const Grid<float>& numbers) const {
    for (int64_t i = 0; i < x.routers; ++i) numbers[x.router + i][t] = lanes[i];
  }

  void make_logits() {
    float* score = scores[0];
    for (int64_t t = x.token; t < x.token + x.tokens; ++t) {
      for (int64_t j = 0; j < x.sources; ++j, score += kRouters) {
        const Vec key = broadcast(p.ratio[x.source + j][t] * p.inverse[x.source + j][t]);
        for (int i = 0; i < kRouters; i += kLanes) {
          store(score + i, fma(key, load(score + i), load(bias[j] + i)));
        }
      }
    }
  }

  void keep_logits() const {
    for (int64_t i = 0; i < x.routers; ++i) {
      for (int64_t j = 0; j < x.sources; ++j) {
        float* kept = p.logits[x.router + i][x.source + j] + x.token;
        for (int64_t t = 0; t < x.tokens; ++t) kept[t] = scores[t * x.sources + j][i];
      }
    }
  }

  // Adds the sources of x to the softmax of one token, whose state is in p.peak and p.mass. scores:
  // logits -> exp(logit - peak) ratio; fade: the factor for the sum so far.
  void soften(int64_t token, float* fade) {
    const int64_t t = x.token + token;
    const bool first = x.source == 0;
    float(*score)[kRouters] = scores + token * x.sources;
    float peaks[kRouters] = {}, masses[kRouters] = {};
    if (!first) {
      take(p.peak, t, peaks);
      take(p.mass, t, masses);
    }
    for (int i = 0; i < kRouters; i += kLanes) {
      const Vec before = first ? load(score[0] + i) : load(peaks + i);
      Vec peak = before;
      for (int64_t j = 0; j < x.sources; ++j) peak = max(peak, load(score[j] + i));
      const Vec scale = exp(before - peak);
      Vec mass = load(masses + i) * scale;
      for (int64_t j = 0; j < x.sources; ++j) {
        const Vec weight = exp(load(score[j] + i) - peak);
        mass += weight;
        store(score[j] + i, weight * broadcast(p.ratio[x.source + j][t]));
      }
      store(peaks + i, peak);
      store(masses + i, mass);
      store(fade + i, scale);
    }
    give(peaks, t, p.peak);
    give(masses, t, p.mass);
  }

  // Mixtures of several routers are read much later, that of a single router at once.
  void add_values(int64_t token, const float* fade) const {
    M* mixed[kRouters];
    for (int64_t i = 0; i < x.routers; ++i) mixed[i] = p.mixed[x.router + i][x.token + token];
    const Terms<R, kRouters, 1> values = {rows + token * x.sources, x.sources,
                                          scores[token * x.sources]};
    const bool non_temporal = p.routers > 1 && x.source + x.sources == p.sources;
    combine(
        p.d, mixed, x.routers, non_temporal,
        [&](int64_t i, int64_t c, int64_t count) __attribute__((always_inline)) {
          return x.source == 0 ? zero() : broadcast(fade[i]) * load_some(mixed[i] + c, count);
        },
        values);
  }

  void run(const Extent& extent) {
    x = extent;
    list_rows(p, x, rows);
    turn_bias(p, x, bias);
    dots<kRouters>(p.query.from(x.router), x.routers, rows, x.tokens * x.sources, p.d, scores[0]);
    make_logits();
    if (p.logits) keep_logits();
    for (int64_t token = 0; token < x.tokens; ++token) {
      float fade[kRouters];
      soften(token, fade);
      add_values(token, fade);
    }
  }
};

template <typename R, typename M>
void mix(const MixFinished<R, M>& problem, int64_t begin, int64_t end) {
  Mixer<R, M> mixer{problem, {}, {}, {}, {}};
  for_extents(problem, begin, end, [&](const Extent& x) { mixer.run(x); });
  finish_non_temporal_stores();
}

template <typename R, typename M>
struct Unmixer {
  const MixFinishedBackward<R, M>& p;
  Extent x;
  const R* rows[kTokens * kSources];  // [tokens, sources] of x
  // Of every row: logits and dh . V of the routers, then, closely packed, [A | C] with
  // A_i = a_i ratio and C_i = dlogit_i k, the weights of dh_i and q_i in the row's gradient.
  float pairs[kTokens * kSources][kPair];
  float bias[kSources][kRouters];
  float bias_grad[kSources][kRouters];
  float active[kRouters];  // 1 for the lanes of x's routers, else 0

  void fetch_logits() {
    for (int64_t i = 0; i < x.routers; ++i) {
      for (int64_t j = 0; j < x.sources; ++j) {
        const float* logits = p.logits[x.router + i][x.source + j] + x.token;
        for (int64_t t = 0; t < x.tokens; ++t) pairs[t * x.sources + j][i] = logits[t];
      }
    }
  }

  // logits, dh . V -> A, C; decay_j = k_j^2 / d sum_i dlogit_ij (logit_ij - bias_ij)
  void make_weights(int64_t token, float* decay) {
    const int64_t t = x.token + token;
    float lse[kRouters] = {}, along[kRouters] = {};
    for (int64_t i = 0; i < x.routers; ++i) {
      lse[i] = p.lse[x.router + i][t];
      along[i] = p.along[x.router + i][t];
    }
    for (int64_t j = 0; j < x.sources; ++j) {
      const float ratio = p.ratio[x.source + j][t], key = ratio * p.inverse[x.source + j][t];
      float* pair = pairs[token * x.sources + j];
      Vec value_weight[kParts], key_weight[kParts];
      Vec turn = zero();
      for (int n = 0; n < kParts; ++n) {
        const int i = n * kLanes;
        const IntVec is_router = load(active + i) > 0.0F;
        const Vec logit = load(pair + i);
        const Vec a = exp(logit - load(lse + i));
        const Vec gap = fma(broadcast(ratio), load(pair + kRouters + i), -load(along + i));
        const Vec dlogit = is_router ? a * gap : zero();
        value_weight[n] = a * broadcast(ratio);
        key_weight[n] = dlogit * broadcast(key);
        turn += is_router ? dlogit * (logit - load(bias[j] + i)) : zero();
        store(bias_grad[j] + i, load(bias_grad[j] + i) + dlogit);
      }
      for (int n = 0; n < kParts; ++n) store(pair + n * kLanes, value_weight[n]);
      for (int n = 0; n < kParts; ++n) store(pair + x.routers + n * kLanes, key_weight[n]);
      decay[j] = key * (sum(turn) / static_cast<float>(p.d)) * key;
    }
  }

  void add_source_grads(int64_t token, const float* decay) const {
    const int64_t t = x.token + token;
    const M* dh[kRouters];
    const float* query[kRouters];
    for (int64_t i = 0; i < x.routers; ++i) {
      dh[i] = p.dh[x.router + i][t];
      query[i] = p.query[x.router + i];
    }
    float* grads[kSources];
    for (int64_t j = 0; j < x.sources; ++j) grads[j] = p.grads[x.source + j][t];
    const R* const* row = rows + token * x.sources;
    const float* const weights = pairs[token * x.sources];
    combine(
        p.d, grads, x.sources, /*non_temporal=*/false,
        [&](int64_t j, int64_t c, int64_t count) __attribute__((always_inline)) {
          const bool empty = x.router == 0 && p.first[x.source + j];
          const Vec before = empty ? zero() : load_some(grads[j] + c, count);
          return fma(broadcast(-decay[j]), load_some(row[j] + c, count), before);
        },
        Terms<M, 1, kPair>{dh, x.routers, weights},
        Terms<float, 1, kPair>{query, x.routers, weights + x.routers});
  }

  void add_router_grads() const {
    float* grads[kRouters];
    for (int64_t i = 0; i < x.routers; ++i) grads[i] = p.query_grad[x.router + i];
    const Terms<R, kPair, 1> keys = {rows, x.tokens * x.sources, pairs[0] + x.routers};
    combine(
        p.d, grads, x.routers, /*non_temporal=*/false,
        [&](int64_t i, int64_t c, int64_t count)
            __attribute__((always_inline)) { return load_some(grads[i] + c, count); },
        keys);
    for (int64_t i = 0; i < x.routers; ++i) {
      for (int64_t j = 0; j < x.sources; ++j) {
        p.bias_grad[x.router + i][x.source + j] += bias_grad[j][i];
      }
    }
  }

  void run(const Extent& extent) {
    x = extent;
    for (int64_t i = 0; i < kRouters; ++i) active[i] = i < x.routers ? 1.0F : 0.0F;
    std::memset(bias_grad, 0, sizeof bias_grad);
    list_rows(p, x, rows);
    turn_bias(p, x, bias);
    fetch_logits();
    for (int64_t token = 0; token < x.tokens; ++token) {
      // The token's rows of the routers, as rows of one grid.
      const Grid<const M> dh = {p.dh[x.router][x.token + token], p.dh.distance};
      dots<kPair>(dh, x.routers, rows + token * x.sources, x.sources, p.d,
                  pairs[token * x.sources] + kRouters);
      float decay[kSources];
      make_weights(token, decay);
      add_source_grads(token, decay);
    }
    add_router_grads();
  }
};

template <typename R, typename M>
void mix_backward(const MixFinishedBackward<R, M>& problem, int64_t begin, int64_t end) {
  Unmixer<R, M> unmixer{problem, {}, {}, {}, {}, {}, {}};
  for_extents(problem, begin, end, [&](const Extent& x) { unmixer.run(x); });
}

template <typename R>
constexpr FinishedKernels<R> kTable = {
    source_scalars<R>,
    {{mix<R, float>, mix_backward<R, float>}, {mix<R, Bf16>, mix_backward<R, Bf16>}}};

}  // namespace

extern const ByType<FinishedKernels> finished_kernels;
const ByType<FinishedKernels> finished_kernels = {kTable<float>, kTable<Bf16>};

}  // namespace wavroute::kernels::WAVROUTE_ISA
