// The PreNorm and phase 2 of a reader backwards: ReadBackward of route.h. Included by
// route_running.cpp only.
#pragma once

#include "kernels/running_rows.h"

namespace wavroute::kernels::WAVROUTE_ISA {
namespace {

// Products of g = gain dx, h and the forms V. With dh = r (g - h r^2/d (g . h)) every product of dh
// follows from them, so that dh need not be computed first.
template <int kForms>
struct Products {
  Vec gh = {}, hh = {}, gv[kForms + 1] = {}, hv[kForms + 1] = {};
  void add(const Products& other) {
    gh += other.gh;
    hh += other.hh;
#pragma GCC unroll 3
    for (int f = 0; f < kForms; ++f) {
      gv[f] += other.gv[f];
      hv[f] += other.hv[f];
    }
  }
};

// The gradients of one token's reader.
struct Chain {
  float gh, hh, gv[kMostForms], hv[kMostForms];
  float dx_part, h_part;  // dh = dx_part gain dx - h_part h
  // of each form: grad += dh_part dh + query_part q - value_part V
  float dh_part[kMostForms], query_part[kMostForms], value_part[kMostForms];
};

template <int kParts, bool kWhole, typename C>
void multiply(const ReadBackward<C>& a, int64_t t, Chain& chain) {
  constexpr int kForms = form_count(kParts);
  const FormsOf<kParts, kWhole> forms(a.parts, t);
  const Row<const float> gain = row_or_ones(a.gain);
  const C* dx = a.dx[t];
  const C* h = a.h[t];
  const auto found = walk<Products<kForms>>(
      a.d, [&](int64_t c, auto lanes, Products<kForms>& m) __attribute__((always_inline)) {
        Vec v[kForms + 1];
        forms.at(c, lanes, v);
        const Vec hidden = lanes.load(h + c);
        const Vec g = lanes.load(gain.at(c)) * lanes.load(dx + c);
        m.gh = fma(g, hidden, m.gh);
        m.hh = fma(hidden, hidden, m.hh);
#pragma GCC unroll 3
        for (int f = 0; f < kForms; ++f) {
          m.gv[f] = fma(g, v[f], m.gv[f]);
          m.hv[f] = fma(hidden, v[f], m.hv[f]);
        }
      });
  chain.gh = sum(found.gh);
  chain.hh = sum(found.hh);
#pragma GCC unroll 3
  for (int f = 0; f < kForms; ++f) {
    chain.gv[f] = sum(found.gv[f]);
    chain.hv[f] = sum(found.hv[f]);
  }
}

// Through the norm and the softmax: from the products to the coefficients of each gradient.
template <typename C>
void derive(const ReadBackward<C>& a, int64_t t, Chain& chain) {
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
  for (int f = 0; f < kMostForms; ++f) {
    chain.dh_part[f] = chain.query_part[f] = chain.value_part[f] = 0.0F;
  }
  float weight[kLanes];
  for (float& logit : weight) logit = -__builtin_inff();
  for (int s = 0; s < a.running; ++s) {
    const RunningSourceGrad& source = a.sources[s];
    weight[s] = source.ratio[t] * source.inverse[t] * source.dot[t] + source.bias - a.lse[t];
  }
  store(weight, exp(load(weight)));
  for (int s = 0; s < a.running; ++s) {
    const RunningSourceGrad& source = a.sources[s];
    const int f = source.form;
    const float ratio = source.ratio[t], k = ratio * source.inverse[t];
    const float dh_v = chain.dx_part * chain.gv[f] - chain.h_part * chain.hv[f];
    const float dlogit = weight[s] * (ratio * dh_v - along);
    chain.dh_part[f] += weight[s] * ratio;
    chain.query_part[f] += dlogit * k;
    chain.value_part[f] += dlogit * k * (k * k / d * source.dot[t]);
    if (source.bias_grad != nullptr) *source.bias_grad += dlogit;
  }
}

// Adds the gradients of forms that are this one from here on (FormGrad::joined).
template <typename C>
void join(const ReadBackward<C>& a, int forms, int64_t t) {
  for (int f = 0; f < forms; ++f) {
    if (!a.forms[f].joined) continue;
    float* grad = a.forms[f].grad[t];
    const float* joined = a.forms[f].joined[t];
    walk<NoSums>(
        a.d, [&](int64_t c, auto lanes, NoSums&) __attribute__((always_inline)) {
          lanes.store(grad + c, lanes.load(grad + c) + lanes.load(joined + c));
        });
  }
}

// dh and all gradients of one token, in one pass over each row. The first kRead forms are changed
// by the reader, the others only give their part of du.
template <int kParts, bool kWhole, int kRead, typename C>
void spread(const ReadBackward<C>& a, int64_t t, const Chain& chain) {
  constexpr int kForms = form_count(kParts);
  const FormsOf<kParts, kWhole> forms(a.parts, t);
  const Row<const float> gain = row_or_ones(a.gain);
  const C* dx = a.dx[t];
  const C* h = a.h[t];
  const float* query = a.query;
  float* gain_grad = a.gain_grad;
  float* query_grad = a.query_grad;
  C* dh = a.dh[t];
  C* du = a.du ? a.du[t] : nullptr;
  float* grad[kForms + 1];
  Vec dh_part[kRead + 1], query_part[kRead + 1], value_part[kRead + 1], sign[kForms + 1];
#pragma GCC unroll 3
  for (int f = 0; f < kForms; ++f) {
    grad[f] = a.forms[f].grad[t];
    sign[f] = broadcast(a.forms[f].sign);
  }
#pragma GCC unroll 3
  for (int f = 0; f < kRead; ++f) {
    dh_part[f] = broadcast(chain.dh_part[f]);
    query_part[f] = broadcast(chain.query_part[f]);
    value_part[f] = broadcast(-chain.value_part[f]);
  }
  const Vec dx_part = broadcast(chain.dx_part), h_part = broadcast(-chain.h_part);
  const auto run = [&](auto has_gain_grad, auto has_du) __attribute__((always_inline)) {
    walk<NoSums>(
        a.d, [&](int64_t c, auto lanes, NoSums&) __attribute__((always_inline)) {
          const Vec normed = dx_part * lanes.load(dx + c), hidden = lanes.load(h + c);
          const Vec hidden_grad = fma(h_part, hidden, normed * lanes.load(gain.at(c)));
          lanes.store_non_temporal(dh + c, hidden_grad);
          if constexpr (decltype(has_gain_grad)::value) {
            lanes.store(gain_grad + c, fma(normed, hidden, lanes.load(gain_grad + c)));
          }
          Vec update_grad = zero();
          if constexpr (kRead > 0) {
            Vec v[kForms + 1];
            forms.at(c, lanes, v);
            const Vec q = lanes.load(query + c);
            Vec q_grad = lanes.load(query_grad + c);
#pragma GCC unroll 3
            for (int f = 0; f < kRead; ++f) {
              Vec g = lanes.load(grad[f] + c);
              g = fma(dh_part[f], hidden_grad, g);
              g = fma(query_part[f], q, g);
              g = fma(value_part[f], v[f], g);
              lanes.store(grad[f] + c, g);
              q_grad = fma(query_part[f], v[f], q_grad);
              update_grad = fma(sign[f], g, update_grad);
            }
            lanes.store(query_grad + c, q_grad);
          }
          if constexpr (!decltype(has_du)::value) return;
#pragma GCC unroll 3
          for (int f = kRead; f < kForms; ++f) {
            update_grad = fma(sign[f], lanes.load(grad[f] + c), update_grad);
          }
          lanes.store(du + c, update_grad);
        });
  };
  specialize(gain_grad != nullptr, [&](auto has_gain_grad) {
    specialize(du != nullptr, [&](auto has_du) { run(has_gain_grad, has_du); });
  });
}

template <int kParts, bool kWhole, int kRead, typename C>
void read_backward_parts(const ReadBackward<C>& a, int64_t begin, int64_t end) {
  Chain chains[kTogether];
  for (int64_t t = begin; t < end; t += kTogether) {
    const int64_t tokens = end - t < kTogether ? end - t : kTogether;
    for (int64_t i = 0; i < tokens; ++i) join(a, form_count(kParts), t + i);
    for (int64_t i = 0; i < tokens; ++i) multiply<kParts, kWhole>(a, t + i, chains[i]);
    for (int64_t i = 0; i < tokens; ++i) derive(a, t + i, chains[i]);
    for (int64_t i = 0; i < tokens; ++i) spread<kParts, kWhole, kRead>(a, t + i, chains[i]);
  }
  finish_non_temporal_stores();
}

template <typename C>
void read_backward(const ReadBackward<C>& a, int64_t begin, int64_t end) {
  bool details = false;
  for (int s = 0; s < a.running; ++s) details = details || a.sources[s].form > 0;
  with_parts(a.parts, -1, [&](auto parts) {
    constexpr int kParts = decltype(parts)::value, kForms = form_count(kParts);
    constexpr bool kWhole = decltype(parts)::whole;
    constexpr int kSummary = kForms > 0 ? 1 : 0;
    if (details) {
      read_backward_parts<kParts, kWhole, kForms>(a, begin, end);
    } else {
      read_backward_parts<kParts, kWhole, kSummary>(a, begin, end);
    }
  });
}

// ---- the end of a block -------------------------------------------------------------------------

template <typename C>
void update_grad(const UpdateGrad<C>& a, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    const float* grad[kMostRunning] = {};
    for (int s = 0; s < a.sums; ++s) grad[s] = a.grads[s][t];
    C* du = a.du[t];
    sweep(a.d, [&](int64_t c, auto lanes) {
      Vec g = broadcast(a.sign[0]) * lanes.load(grad[0] + c);
      for (int s = 1; s < a.sums; ++s) g = fma(broadcast(a.sign[s]), lanes.load(grad[s] + c), g);
      lanes.store(du + c, g);
    });
  }
}

}  // namespace
}  // namespace wavroute::kernels::WAVROUTE_ISA
