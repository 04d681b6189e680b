// The PreNorm and phase 2 of a reader backwards, and the running sums with it: ReadBackward of
// route.h. Included by route_running.cpp alone.
#pragma once

#include "kernels/running_rows.h"

namespace wavroute::kernels::WAVROUTE_ISA {
namespace {

// Which sums collect what. A detail that was S when it was read, and has no gradient of its own,
// gives its part to that of S: all updates before had the same sign in both.
struct Collectors {
  int count = 0;
  int read = 0;                      // the first `read` of them are changed by this reader
  int sum[kMostRunning] = {};        // [count] whose gradient it is
  int value[kMostRunning] = {};      // [count] place of that sum's values, see Distinct
  int collector[kMostRunning] = {};  // [running] where a sum's gradient goes
};

template <typename C>
inline Collectors find_collectors(const ReadBackward<C>& a, const Distinct& distinct) {
  bool reads[kMostRunning] = {};
  for (int s = 0; s < a.running; ++s) {
    if (a.sums[s].read) reads[a.sums[s].grad != nullptr ? s : 0] = true;
  }
  Collectors found;
  for (const bool wanted : {true, false}) {
    for (int s = 0; s < a.running; ++s) {
      if (a.sums[s].grad == nullptr || reads[s] != wanted) continue;
      found.sum[found.count] = s;
      found.value[found.count] = distinct.place[s];
      found.collector[s] = found.count++;
    }
    if (wanted) found.read = found.count;
  }
  for (int s = 1; s < a.running; ++s) {
    if (a.sums[s].grad == nullptr) found.collector[s] = found.collector[0];
  }
  return found;
}

// Products of g = gain dx, h and the sums V. With dh = r (g - h r^2/d (g . h)) every product of dh
// follows from them, so that dh needn't be made before it can be multiplied.
template <int kSums>
struct Products {
  Vec gh = {}, hh = {}, gv[kSums + 1] = {}, hv[kSums + 1] = {};
  void add(const Products& other) {
    gh += other.gh;
    hh += other.hh;
#pragma GCC unroll 3
    for (int s = 0; s < kSums; ++s) {
      gv[s] += other.gv[s];
      hv[s] += other.hv[s];
    }
  }
};

// The gradients of one token's reader.
struct Chain {
  float gh, hh, gv[kMostRunning], hv[kMostRunning];
  float dx_part, h_part;  // dh = dx_part gain dx - h_part h
  // of each collector: grad += dh_part dh + query_part q - value_part V
  float dh_part[kMostRunning], query_part[kMostRunning], value_part[kMostRunning];
};

// V = in - undo * undone, stored, and the products.
template <int kSums, typename C>
void undo(const ReadBackward<C>& a, const Distinct& distinct, int64_t t, Chain& chain) {
  const int64_t offset = t * a.d;
  const Row<const C> undone = row_or_zeros(a.undone, offset);
  const Row<const float> gain = row_or_ones(a.gain);
  const C* dx = a.dx + offset;
  const float* h = a.h + offset;
  float nowhere[kLanes];
  Row<const float> in[kSums + 1];
  Row<float> out[kSums + 1];
  Vec back[kSums + 1];
#pragma GCC unroll 3
  for (int s = 0; s < kSums; ++s) {
    const RunningGrad& sum = a.sums[distinct.sum[s]];
    in[s] = row_or_zeros(sum.in != nullptr ? sum.in : a.sums[0].in, offset);
    out[s] = row_or_nowhere(sum.out, offset, nowhere);
    back[s] = broadcast(-sum.undo);
  }
  const auto found = walk<Products<kSums>>(
      a.d, [&](int64_t c, auto lanes, Products<kSums>& m) __attribute__((always_inline)) {
        const Vec update = lanes.load(undone.at(c));
        Vec v[kSums + 1];
#pragma GCC unroll 3
        for (int s = 0; s < kSums; ++s) v[s] = fma(back[s], update, lanes.load(in[s].at(c)));
#pragma GCC unroll 3
        for (int s = 0; s < kSums; ++s) lanes.store(out[s].at(c), v[s]);
        const Vec hidden = lanes.load(h + c);
        const Vec g = lanes.load(gain.at(c)) * lanes.load(dx + c);
        m.gh = fma(g, hidden, m.gh);
        m.hh = fma(hidden, hidden, m.hh);
#pragma GCC unroll 3
        for (int s = 0; s < kSums; ++s) {
          m.gv[s] = fma(g, v[s], m.gv[s]);
          m.hv[s] = fma(hidden, v[s], m.hv[s]);
        }
      });
  chain.gh = sum(found.gh);
  chain.hh = sum(found.hh);
#pragma GCC unroll 3
  for (int s = 0; s < kSums; ++s) {
    chain.gv[s] = sum(found.gv[s]);
    chain.hv[s] = sum(found.hv[s]);
  }
}

// Through the norm and the softmax: from the products to what each gradient takes.
template <typename C>
void derive(const ReadBackward<C>& a, const Distinct& distinct, const Collectors& collectors,
            int64_t t, Chain& chain) {
  const float d = static_cast<float>(a.d);
  chain.dx_part = 1.0F;
  chain.h_part = 0.0F;
  if (a.gain != nullptr) {
    const float r = a.inverse_rms[t];
    chain.dx_part = r;
    chain.h_part = r * r * r / d * chain.gh;
  }
  const float along = chain.dx_part * chain.gh - chain.h_part * chain.hh;
  a.along[t] = along;
  for (int i = 0; i < collectors.count; ++i) {
    chain.dh_part[i] = chain.query_part[i] = chain.value_part[i] = 0.0F;
  }
  float weight[kLanes];
  for (float& logit : weight) logit = -__builtin_inff();
  for (int s = 0; s < a.running; ++s) {
    const RunningGrad& sum = a.sums[s];
    if (sum.read) weight[s] = sum.ratio[t] * sum.inverse[t] * sum.dot[t] + sum.bias - a.lse[t];
  }
  store(weight, exp(load(weight)));
  for (int s = 0; s < a.running; ++s) {
    const RunningGrad& sum = a.sums[s];
    if (!sum.read) continue;
    const int place = distinct.place[s], i = collectors.collector[s];
    const float ratio = sum.ratio[t], k = ratio * sum.inverse[t];
    const float dh_v = chain.dx_part * chain.gv[place] - chain.h_part * chain.hv[place];
    const float dlogit = weight[s] * (ratio * dh_v - along);
    chain.dh_part[i] += weight[s] * ratio;
    chain.query_part[i] += dlogit * k;
    chain.value_part[i] += dlogit * k * (k * k / d * sum.dot[t]);
    if (sum.bias_grad != nullptr) *sum.bias_grad += dlogit;
  }
}

// dh and all gradients of one token, each row touched once.
template <int kRead, int kCollectors, typename C>
void spread(const ReadBackward<C>& a, const Distinct& distinct, const Collectors& collectors,
            int64_t t, const Chain& chain) {
  const int64_t offset = t * a.d;
  const Row<const float> gain = row_or_ones(a.gain);
  const C* dx = a.dx + offset;
  const float* h = a.h + offset;
  const float* query = a.query;
  float* gain_grad = a.gain_grad;
  float* query_grad = a.query_grad;
  float* dh = a.dh + offset;
  C* du = a.du != nullptr ? a.du + offset : nullptr;
  Row<const float> value[kRead + 1];
  float* grad[kCollectors + 1];
  Vec dh_part[kRead + 1], query_part[kRead + 1], value_part[kRead + 1], sign[kCollectors + 1];
#pragma GCC unroll 3
  for (int i = 0; i < kCollectors; ++i) {
    const RunningGrad& sum = a.sums[collectors.sum[i]];
    grad[i] = sum.grad + offset;
    sign[i] = broadcast(sum.sign);
  }
#pragma GCC unroll 3
  for (int i = 0; i < kRead; ++i) {
    const RunningGrad& sum = a.sums[distinct.sum[collectors.value[i]]];
    value[i] = row_or_zeros<float>(sum.out != nullptr ? sum.out : sum.in, offset);
    dh_part[i] = broadcast(chain.dh_part[i]);
    query_part[i] = broadcast(chain.query_part[i]);
    value_part[i] = broadcast(-chain.value_part[i]);
  }
  const Vec dx_part = broadcast(chain.dx_part), h_part = broadcast(-chain.h_part);
  walk<NoSums>(
      a.d, [&](int64_t c, auto lanes, NoSums&) __attribute__((always_inline)) {
        const Vec normed = dx_part * lanes.load(dx + c), hidden = lanes.load(h + c);
        const Vec hidden_grad = fma(h_part, hidden, normed * lanes.load(gain.at(c)));
        lanes.store(dh + c, hidden_grad);
        if (gain_grad != nullptr) {
          lanes.store(gain_grad + c, fma(normed, hidden, lanes.load(gain_grad + c)));
        }
        Vec update_grad = zero();
        if constexpr (kRead > 0) {
          const Vec q = lanes.load(query + c);
          Vec q_grad = lanes.load(query_grad + c);
#pragma GCC unroll 3
          for (int i = 0; i < kRead; ++i) {
            const Vec v = lanes.load(value[i].at(c));
            Vec g = lanes.load(grad[i] + c);
            g = fma(dh_part[i], hidden_grad, g);
            g = fma(query_part[i], q, g);
            g = fma(value_part[i], v, g);
            lanes.store(grad[i] + c, g);
            q_grad = fma(query_part[i], v, q_grad);
            update_grad = fma(sign[i], g, update_grad);
          }
          lanes.store(query_grad + c, q_grad);
        }
        if (du == nullptr) return;
#pragma GCC unroll 3
        for (int i = kRead; i < kCollectors; ++i) {
          update_grad = fma(sign[i], lanes.load(grad[i] + c), update_grad);
        }
        lanes.store(du + c, update_grad);
      });
}

template <int kRead, int kCollectors, typename C>
void spread_tokens(const ReadBackward<C>& a, const Distinct& distinct, const Collectors& collectors,
                   int64_t t, int64_t tokens, const Chain* chains) {
  for (int64_t i = 0; i < tokens; ++i) {
    spread<kRead, kCollectors>(a, distinct, collectors, t + i, chains[i]);
  }
}

template <typename C>
using Undo = void (*)(const ReadBackward<C>&, const Distinct&, int64_t t, Chain&);
template <typename C>
using Spread = void (*)(const ReadBackward<C>&, const Distinct&, const Collectors&, int64_t t,
                        int64_t tokens, const Chain*);

template <typename C>
void read_backward(const ReadBackward<C>& a, int64_t begin, int64_t end) {
  static constexpr Undo<C> kUndo[] = {undo<0, C>, undo<1, C>, undo<2, C>, undo<3, C>};
  static constexpr Spread<C> kSpread[kMostRunning + 1][kMostRunning + 1] = {
      {spread_tokens<0, 0, C>, spread_tokens<0, 1, C>, spread_tokens<0, 2, C>,
       spread_tokens<0, 3, C>},
      {nullptr, spread_tokens<1, 1, C>, spread_tokens<1, 2, C>, spread_tokens<1, 3, C>},
      {nullptr, nullptr, spread_tokens<2, 2, C>, spread_tokens<2, 3, C>},
      {nullptr, nullptr, nullptr, spread_tokens<3, 3, C>}};
  const Distinct distinct = distinct_sums(a.sums, a.running, a.undone != nullptr);
  const Collectors collectors = find_collectors(a, distinct);
  const Undo<C> undo_token = kUndo[distinct.count];
  const Spread<C> spread = kSpread[collectors.read][collectors.count];
  Chain chains[kTogether];
  for (int64_t t = begin; t < end; t += kTogether) {
    const int64_t tokens = end - t < kTogether ? end - t : kTogether;
    for (int64_t i = 0; i < tokens; ++i) undo_token(a, distinct, t + i, chains[i]);
    for (int64_t i = 0; i < tokens; ++i) derive(a, distinct, collectors, t + i, chains[i]);
    spread(a, distinct, collectors, t, tokens, chains);
  }
}

}  // namespace
}  // namespace wavroute::kernels::WAVROUTE_ISA
