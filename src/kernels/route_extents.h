// How the routing over finished sources is divided into pieces with scratch of a bounded size, and
// what both directions prepare for a piece. Included by kernel sources only.
#pragma once

#include <cstdint>

#include "kernels/vec.h"

namespace wavroute::kernels::WAVROUTE_ISA {
namespace {

// Most tokens, routers and sources of a piece.
inline constexpr int kTokens = 8;
inline constexpr int kRouters = 16;  // in the lanes of scratch rows
inline constexpr int kSources = 32;

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Some tokens, routers and sources of a problem.
struct Extent {
  int64_t token = 0, tokens = 0;
  int64_t router = 0, routers = 0;
  int64_t source = 0, sources = 0;
};

// Calls f(extent) for all tiles of the tokens [begin, end): tokens outermost, sources innermost.
template <typename Problem, typename F>
inline void for_extents(const Problem& p, int64_t begin, int64_t end, const F& f) {
  for (int64_t t = begin; t < end; t += kTokens) {
    for (int64_t i = 0; i < p.routers; i += kRouters) {
      for (int64_t j = 0; j < p.sources; j += kSources) {
        f(Extent{t, smaller(end - t, kTokens), i, smaller(p.routers - i, kRouters), j,
                 smaller(p.sources - j, kSources)});
      }
    }
  }
}

// rows[token, source] of an extent
template <typename Problem, typename R>
inline void list_rows(const Problem& p, const Extent& x, const R** rows) {
  for (int64_t t = 0; t < x.tokens; ++t) {
    for (int64_t j = 0; j < x.sources; ++j) {
      *rows++ = p.rows[x.source + j][x.token + t];
    }
  }
}

// bias[source][router] of an extent, with zeros for the lanes beyond its routers
template <typename Problem>
inline void turn_bias(const Problem& p, const Extent& x, float (*bias)[kRouters]) {
  for (int64_t j = 0; j < x.sources; ++j) {
    for (int64_t i = 0; i < kRouters; ++i) {
      bias[j][i] = i < x.routers ? p.bias[x.router + i][x.source + j] : 0.0F;
    }
  }
}

}  // namespace
}  // namespace wavroute::kernels::WAVROUTE_ISA
