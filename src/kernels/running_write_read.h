// The write of an update, phase 2 of the reader after it, and its PreNorm: WriteRead of route.h.
// Included by route_running.cpp only.
#pragma once

#include <type_traits>

#include "kernels/running_rows.h"
#include "kernels/source_numbers.h"

namespace wavroute::kernels::WAVROUTE_ISA {
namespace {

template <int kForms>
struct Measures {
  Vec dot[kForms + 1] = {};     // q . V
  Vec square[kForms + 1] = {};  // V . V
  void add(const Measures& other) {
#pragma GCC unroll 3
    for (int f = 0; f < kForms; ++f) {
      dot[f] += other.dot[f];
      square[f] += other.square[f];
    }
  }
};

// The scalars of one token's reader.
struct Weights {
  float dot[kMostForms] = {}, square[kMostForms] = {};
  float peak, mass;           // of all sources: the largest logit, the sum of exp(logit - peak)
  float finished;             // weight of `mixed`
  float running[kMostForms];  // ratio included
  float inverse_rms;
};

// q . V and V . V of every form.
template <int kParts, bool kWhole, typename C>
void measure(const WriteRead<C>& a, int64_t t, Weights& w) {
  constexpr int kForms = form_count(kParts);
  const FormsOf<kParts, kWhole> forms(a.parts, a.write, t);
  const float* query = a.query;
  const auto found = walk<Measures<kForms>>(
      a.d, [&](int64_t c, auto lanes, Measures<kForms>& m) __attribute__((always_inline)) {
        Vec v[kForms + 1];
        forms.at(c, lanes, v);
        const Vec q = lanes.load(query + c);
#pragma GCC unroll 3
        for (int f = 0; f < kForms; ++f) {
          m.dot[f] = fma(q, v[f], m.dot[f]);
          m.square[f] = fma(v[f], v[f], m.square[f]);
        }
      });
#pragma GCC unroll 3
  for (int f = 0; f < kForms; ++f) {
    w.dot[f] = sum(found.dot[f]);
    w.square[f] = sum(found.square[f]);
  }
}

// Keeps the scalars of the running sources and merges them with phase 1: the weights of h.
template <typename C>
void weigh(const WriteRead<C>& a, int64_t t, Weights& w) {
  static_assert(kLanes > kMostRunning, "lane 0 is phase 1's, lane s + 1 running source s's");
  float logit[kLanes], ratio[kMostRunning], weight[kLanes];
  float peak = a.peak[t];
  logit[0] = peak;
  for (int s = 1; s < kLanes; ++s) logit[s] = -__builtin_inff();
  const float d = static_cast<float>(a.d);
  const float summary = w.square[0] / d + a.matching_eps;
  for (int s = 0; s < a.running; ++s) {
    const RunningSource& source = a.sources[s];
    const float mean = w.square[source.form] / d;
    float matched = 1.0F;  // ratio^2 as in source_numbers(); 0 for a detail that is all zeros
    if (source.form > 0) {
      const float detail = mean + a.matching_eps;
      matched = detail > 0.0F ? summary / detail : 0.0F;
    }
    ratio[s] = __builtin_sqrtf(matched);
    const float inverse = inverse_root(matched * mean + a.norm_eps);
    logit[s + 1] = ratio[s] * inverse * w.dot[source.form] + source.bias;
    peak = logit[s + 1] > peak ? logit[s + 1] : peak;
    if (source.dot != nullptr) source.dot[t] = w.dot[source.form];
    if (source.ratio != nullptr) source.ratio[t] = ratio[s];
    if (source.inverse != nullptr) source.inverse[t] = inverse;
  }
  store(weight, exp(load(logit) - peak));
  float mass = a.mass[t] * weight[0];
  for (int s = 0; s < a.running; ++s) mass += weight[s + 1];
  w.peak = peak;
  w.mass = mass;
  const float share = 1.0F / mass;
  w.finished = weight[0] * share;
  for (float& running : w.running) running = 0.0F;
  for (int s = 0; s < a.running; ++s) {
    w.running[a.sources[s].form] += weight[s + 1] * share * ratio[s];
  }
}

// The logarithms of a group's tokens, in one vector.
inline void keep_lse(const Weights (&w)[kTogether], int64_t tokens, float* lse) {
  static_assert(kTogether <= kLanes, "a token has a lane");
  float peak[kLanes] = {}, mass[kLanes];
  for (int64_t i = 0; i < kLanes; ++i) mass[i] = 1.0F;
  for (int64_t i = 0; i < tokens; ++i) {
    peak[i] = w[i].peak;
    mass[i] = w[i].mass;
  }
  store_part(lse, load(peak) + log(load(mass)), tokens);
}

// h of one token from its weights, a vector at a time.
template <int kParts, bool kWhole, typename C>
struct Mixture {
  static constexpr int kForms = form_count(kParts);
  const C* mixed;
  FormsOf<kParts, kWhole> forms;
  Vec finished, running[kForms + 1];

  Mixture(const WriteRead<C>& a, int64_t t, const Weights& w)
      : mixed(a.mixed[t]), forms(a.parts, a.write, t), finished(broadcast(w.finished)) {
#pragma GCC unroll 3
    for (int f = 0; f < kForms; ++f) running[f] = broadcast(w.running[f]);
  }
  template <typename Lanes>
  Vec at(int64_t c, Lanes lanes) const {
    Vec v[kForms + 1];
    forms.at(c, lanes, v);
    Vec h = finished * lanes.load(mixed + c);
#pragma GCC unroll 3
    for (int f = 0; f < kForms; ++f) h = fma(running[f], v[f], h);
    return h;
  }
};

struct Square {
  Vec square = {};
  void add(const Square& other) { square += other.square; }
};

// h in float between the last two passes: the row that keeps it, if that is float, else a scratch
// row; for rows too long for that, h is computed again.
constexpr int64_t kScratchColumns = 2048;
template <typename C>
float* hidden_row(const WriteRead<C>& a, int64_t t, float* scratch) {
  if constexpr (std::is_same_v<C, float>) {
    if (a.h) return a.h[t];
  }
  return a.d <= kScratchColumns ? scratch : nullptr;
}

// h, if it is kept, and its root mean square.
template <int kParts, bool kWhole, typename C>
void mix(const WriteRead<C>& a, int64_t t, Weights& w, float* hidden) {
  const Mixture<kParts, kWhole, C> mixture(a, t, w);
  C* kept = std::is_same_v<C, float> || !a.h ? nullptr : a.h[t];
  Square found;
  const auto run = [&](auto has_hidden, auto has_kept) __attribute__((always_inline)) {
    found = walk<Square>(
        a.d, [&](int64_t c, auto lanes, Square& m) __attribute__((always_inline)) {
          const Vec h = mixture.at(c, lanes);
          if constexpr (decltype(has_hidden)::value) lanes.store(hidden + c, h);
          if constexpr (decltype(has_kept)::value) lanes.store_non_temporal(kept + c, h);
          m.square = fma(h, h, m.square);
        });
  };
  specialize(hidden != nullptr, [&](auto has_hidden) {
    specialize(kept != nullptr, [&](auto has_kept) { run(has_hidden, has_kept); });
  });
  w.inverse_rms = inverse_root(sum(found.square) / static_cast<float>(a.d) + a.norm_eps);
  if (a.inverse_rms != nullptr) a.inverse_rms[t] = w.inverse_rms;
}

// x = gain h / rms(h)
template <int kParts, bool kWhole, typename C>
void normalise(const WriteRead<C>& a, int64_t t, const Weights& w, const float* hidden) {
  C* x = a.x[t];
  const float* gain = a.gain;
  const Vec inverse_rms = broadcast(w.inverse_rms);
  const auto finish = [&](const auto& h_at) __attribute__((always_inline)) {
    specialize(gain != nullptr, [&](auto has_gain) {
      walk<NoSums>(
          a.d, [&](int64_t c, auto lanes, NoSums&) __attribute__((always_inline)) {
            Vec h = h_at(c, lanes);
            if constexpr (decltype(has_gain)::value) h = h * inverse_rms * lanes.load(gain + c);
            lanes.store(x + c, h);
          });
    });
  };
  if (hidden != nullptr) {
    finish([hidden](int64_t c, auto lanes)
               __attribute__((always_inline)) { return lanes.load(hidden + c); });
  } else {
    const Mixture<kParts, kWhole, C> mixture(a, t, w);
    finish([&mixture](int64_t c, auto lanes)
               __attribute__((always_inline)) { return mixture.at(c, lanes); });
  }
}

template <int kParts, bool kWhole, typename C>
void write_read_parts(const WriteRead<C>& a, int64_t begin, int64_t end) {
  alignas(64) float scratch[kTogether][kScratchColumns];
  Weights w[kTogether];
  float* hidden[kTogether];
  for (int64_t t = begin; t < end; t += kTogether) {
    const int64_t tokens = end - t < kTogether ? end - t : kTogether;
    for (int64_t i = 0; i < tokens; ++i) write_part(a.write, a.d, t + i);
    for (int64_t i = 0; i < tokens; ++i) measure<kParts, kWhole>(a, t + i, w[i]);
    for (int64_t i = 0; i < tokens; ++i) weigh(a, t + i, w[i]);
    if (a.lse != nullptr) keep_lse(w, tokens, a.lse + t);
    for (int64_t i = 0; i < tokens; ++i) {
      hidden[i] = hidden_row(a, t + i, scratch[i]);
      mix<kParts, kWhole>(a, t + i, w[i], hidden[i]);
    }
    if (!a.x) continue;
    for (int64_t i = 0; i < tokens; ++i) normalise<kParts, kWhole>(a, t + i, w[i], hidden[i]);
  }
  finish_non_temporal_stores();
}

template <typename C>
void write_read(const WriteRead<C>& a, int64_t begin, int64_t end) {
  with_parts(a.parts, written_part(a.write), [&](auto parts) {
    write_read_parts<decltype(parts)::value, decltype(parts)::whole>(a, begin, end);
  });
}

// ---- the end of a block -------------------------------------------------------------------------

template <int kForms>
struct Squares {
  Vec square[kForms + 1] = {};
  void add(const Squares& other) {
#pragma GCC unroll 3
    for (int f = 0; f < kForms; ++f) square[f] += other.square[f];
  }
};

// Stores the rows of one token; a form that is several sums is stored for each.
template <int kParts, bool kWhole, typename C>
void finish_token(const FinishBlock<C>& a, int64_t t) {
  constexpr int kForms = form_count(kParts);
  const FormsOf<kParts, kWhole> forms(a.parts, a.write, t);
  float* row[kForms + 1] = {};
  for (int s = a.sums - 1; s >= 0; --s) row[a.form[s]] = a.rows[s][t];
  const auto found = walk<Squares<kForms>>(
      a.d, [&](int64_t c, auto lanes, Squares<kForms>& m) __attribute__((always_inline)) {
        Vec v[kForms + 1];
        forms.at(c, lanes, v);
#pragma GCC unroll 3
        for (int f = 0; f < kForms; ++f) {
          if (row[f] != nullptr) lanes.store(row[f] + c, v[f]);
          m.square[f] = fma(v[f], v[f], m.square[f]);
        }
      });
  double mean[kForms + 1];
  for (int f = 0; f < kForms; ++f) {
    mean[f] = static_cast<double>(sum(found.square[f])) / static_cast<double>(a.d);
  }
  for (int s = 0; s < a.sums; ++s) {
    const int form = a.form[s];
    const float* first = row[form];
    float* own = a.rows[s][t];
    if (own != first) __builtin_memcpy(own, first, static_cast<size_t>(a.d) * sizeof(float));
    const SourceNumbers numbers =
        source_numbers(mean[form], mean[0], form == 0, a.matching_eps, a.norm_eps);
    a.ratio[s][t] = numbers.ratio;
    a.inverse[s][t] = numbers.inverse;
  }
}

template <typename C>
void finish_block(const FinishBlock<C>& a, int64_t begin, int64_t end) {
  with_parts(a.parts, written_part(a.write), [&](auto parts) {
    constexpr int kParts = decltype(parts)::value;
    if constexpr (kParts > 0) {
      for (int64_t t = begin; t < end; ++t) {
        write_part(a.write, a.d, t);
        finish_token<kParts, decltype(parts)::whole>(a, t);
      }
    }
  });
}

}  // namespace
}  // namespace wavroute::kernels::WAVROUTE_ISA
