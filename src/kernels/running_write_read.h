// The write of an update, phase 2 of the reader after it, and its PreNorm: WriteRead of route.h.
// Included by route_running.cpp alone.
#pragma once

#include "kernels/running_rows.h"

namespace wavroute::kernels::WAVROUTE_ISA {
namespace {

template <int kSums>
struct Measures {
  Vec dot[kSums + 1] = {};     // q . V
  Vec square[kSums + 1] = {};  // V . V
  void add(const Measures& other) {
#pragma GCC unroll 3
    for (int s = 0; s < kSums; ++s) {
      dot[s] += other.dot[s];
      square[s] += other.square[s];
    }
  }
};

// What the reader of one token found out.
struct Weights {
  float dot[kMostRunning] = {}, square[kMostRunning] = {};  // of the distinct sums
  float finished;                                           // weight of `mixed`
  float running[kMostRunning];                              // of the distinct sums, ratio included
  float inverse_rms;
};

// V = in + sign u, stored; with kReads also q . V and V . V.
template <int kSums, bool kReads, typename C>
void write(const WriteRead<C>& a, const Distinct& distinct, int64_t t, Weights& w) {
  const int64_t offset = t * a.d;
  const Row<const C> u = row_or_zeros(a.u, offset);
  float nowhere[kLanes];
  Row<const float> in[kSums + 1];
  Row<float> out[kSums + 1];
  Vec sign[kSums + 1];
#pragma GCC unroll 3
  for (int s = 0; s < kSums; ++s) {
    const RunningSum& sum = a.sums[distinct.sum[s]];
    in[s] = row_or_zeros(sum.in, offset);
    out[s] = row_or_nowhere(sum.out, offset, nowhere);
    sign[s] = broadcast(sum.sign);
  }
  const float* query = a.query;
  const auto found = walk<Measures<kSums>>(
      a.d, [&](int64_t c, auto lanes, Measures<kSums>& m) __attribute__((always_inline)) {
        const Vec update = lanes.load(u.at(c));
        Vec v[kSums + 1];
#pragma GCC unroll 3
        for (int s = 0; s < kSums; ++s) v[s] = fma(sign[s], update, lanes.load(in[s].at(c)));
#pragma GCC unroll 3
        for (int s = 0; s < kSums; ++s) lanes.store(out[s].at(c), v[s]);
        if constexpr (kReads) {
          const Vec q = lanes.load(query + c);
#pragma GCC unroll 3
          for (int s = 0; s < kSums; ++s) {
            m.dot[s] = fma(q, v[s], m.dot[s]);
            m.square[s] = fma(v[s], v[s], m.square[s]);
          }
        }
      });
  if constexpr (kReads) {
#pragma GCC unroll 3
    for (int s = 0; s < kSums; ++s) {
      w.dot[s] = sum(found.dot[s]);
      w.square[s] = sum(found.square[s]);
    }
  }
}

// Keeps the scalars of the running sources and merges them with phase 1: the weights of h.
template <typename C>
void weigh(const WriteRead<C>& a, const Distinct& distinct, int64_t t, Weights& w) {
  static_assert(kLanes > kMostRunning, "lane 0 is phase 1's, lane s + 1 running sum s's");
  float logit[kLanes], ratio[kMostRunning], weight[kLanes];
  float peak = a.peak[t];
  logit[0] = peak;
  for (int s = 1; s < kLanes; ++s) logit[s] = -__builtin_inff();
  const float d = static_cast<float>(a.d);
  const float summary = w.square[0] / d + a.matching_eps;
  for (int s = 0; s < a.running; ++s) {
    const RunningSum& sum = a.sums[s];
    if (!sum.read) continue;
    const int place = distinct.place[s];
    const float mean = w.square[place] / d;
    float matched = 1.0F;  // ratio^2, 0 for a detail without a scale: it stays all zeros
    if (place > 0) {
      const float detail = mean + a.matching_eps;
      matched = detail > 0.0F ? summary / detail : 0.0F;
    }
    ratio[s] = __builtin_sqrtf(matched);
    const float inverse = inverse_root(matched * mean + a.norm_eps);
    logit[s + 1] = ratio[s] * inverse * w.dot[place] + sum.bias;
    peak = logit[s + 1] > peak ? logit[s + 1] : peak;
    if (sum.dot != nullptr) sum.dot[t] = w.dot[place];
    if (sum.ratio != nullptr) sum.ratio[t] = ratio[s];
    if (sum.inverse != nullptr) sum.inverse[t] = inverse;
  }
  store(weight, exp(load(logit) - peak));
  float mass = a.mass[t] * weight[0];
  for (int s = 0; s < a.running; ++s) mass += weight[s + 1];
  w.finished = weight[0] / mass;
  for (float& running : w.running) running = 0.0F;
  for (int s = 0; s < a.running; ++s) {
    if (a.sums[s].read) w.running[distinct.place[s]] += weight[s + 1] / mass * ratio[s];
  }
  if (a.lse != nullptr) a.lse[t] = peak + __builtin_logf(mass);
}

// h of one token from its weights, a vector at a time.
template <int kSums>
struct Mixture {
  const float* mixed;
  Row<const float> value[kSums + 1];
  Vec finished, running[kSums + 1];

  template <typename C>
  Mixture(const WriteRead<C>& a, const Distinct& distinct, int64_t t, const Weights& w)
      : mixed(a.mixed + t * a.d), finished(broadcast(w.finished)) {
#pragma GCC unroll 3
    for (int s = 0; s < kSums; ++s) {
      const RunningSum& sum = a.sums[distinct.sum[s]];
      value[s] = row_or_zeros<float>(sum.out != nullptr ? sum.out : sum.in, t * a.d);
      running[s] = broadcast(w.running[s]);
    }
  }
  template <typename Lanes>
  Vec at(int64_t c, Lanes lanes) const {
    Vec h = finished * lanes.load(mixed + c);
#pragma GCC unroll 3
    for (int s = 0; s < kSums; ++s) h = fma(running[s], lanes.load(value[s].at(c)), h);
    return h;
  }
};

struct Square {
  Vec square = {};
  void add(const Square& other) { square += other.square; }
};

// h, where it is kept, and its root mean square.
template <int kSums, typename C>
void mix(const WriteRead<C>& a, const Distinct& distinct, int64_t t, Weights& w) {
  const Mixture<kSums> mixture(a, distinct, t, w);
  float* kept = a.h != nullptr ? a.h + t * a.d : nullptr;
  const Square found = walk<Square>(
      a.d, [&](int64_t c, auto lanes, Square& m) __attribute__((always_inline)) {
        const Vec h = mixture.at(c, lanes);
        if (kept != nullptr) lanes.store(kept + c, h);
        m.square = fma(h, h, m.square);
      });
  w.inverse_rms = inverse_root(sum(found.square) / static_cast<float>(a.d) + a.norm_eps);
  if (a.inverse_rms != nullptr) a.inverse_rms[t] = w.inverse_rms;
}

// x = gain h / rms(h). Where h is not kept it is mixed again: that costs less than a place for it.
template <int kSums, typename C>
void normalise(const WriteRead<C>& a, const Distinct& distinct, int64_t t, const Weights& w) {
  C* x = a.x + t * a.d;
  const float* gain = a.gain;
  const Vec inverse_rms = broadcast(w.inverse_rms);
  const auto finish = [&](const auto& h_at) __attribute__((always_inline)) {
    walk<NoSums>(
        a.d, [&](int64_t c, auto lanes, NoSums&) __attribute__((always_inline)) {
          Vec h = h_at(c, lanes);
          if (gain != nullptr) h = h * inverse_rms * lanes.load(gain + c);
          lanes.store(x + c, h);
        });
  };
  if (a.h != nullptr) {
    const float* h = a.h + t * a.d;
    finish([h](int64_t c, auto lanes) __attribute__((always_inline)) { return lanes.load(h + c); });
  } else {
    const Mixture<kSums> mixture(a, distinct, t, w);
    finish([&mixture](int64_t c, auto lanes)
               __attribute__((always_inline)) { return mixture.at(c, lanes); });
  }
}

template <int kSums, typename C>
void write_read_sums(const WriteRead<C>& a, const Distinct& distinct, int64_t begin, int64_t end) {
  Weights w[kTogether];
  for (int64_t t = begin; t < end; t += kTogether) {
    const int64_t tokens = end - t < kTogether ? end - t : kTogether;
    if (!a.reads) {
      for (int64_t i = 0; i < tokens; ++i) write<kSums, false>(a, distinct, t + i, w[i]);
      continue;
    }
    for (int64_t i = 0; i < tokens; ++i) write<kSums, true>(a, distinct, t + i, w[i]);
    for (int64_t i = 0; i < tokens; ++i) weigh(a, distinct, t + i, w[i]);
    for (int64_t i = 0; i < tokens; ++i) mix<kSums>(a, distinct, t + i, w[i]);
    if (a.x == nullptr) continue;
    for (int64_t i = 0; i < tokens; ++i) normalise<kSums>(a, distinct, t + i, w[i]);
  }
}

template <typename C>
void write_read(const WriteRead<C>& a, int64_t begin, int64_t end) {
  const Distinct distinct = distinct_sums(a.sums, a.running, a.u != nullptr);
  switch (distinct.count) {
    case 0:
      return write_read_sums<0>(a, distinct, begin, end);
    case 1:
      return write_read_sums<1>(a, distinct, begin, end);
    case 2:
      return write_read_sums<2>(a, distinct, begin, end);
    default:
      return write_read_sums<3>(a, distinct, begin, end);
  }
}

}  // namespace
}  // namespace wavroute::kernels::WAVROUTE_ISA
