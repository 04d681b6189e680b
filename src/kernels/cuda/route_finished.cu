// Routing over finished sources: see kernels/route.h. A team of threads takes a token, a source at
// a time, for a few routers together; their mixtures stay in its registers.
#include "kernels/cuda/partial_sums.h"
#include "kernels/cuda/route.h"
#include "kernels/cuda/source_numbers.h"

namespace wavroute::kernels::cuda {
namespace {

constexpr int kRouters = 4;        // that share the load of a source
constexpr int64_t kSources = 128;  // of one launch: they are passed by value

template <typename R>
struct Sources {
  int64_t count = 0, first = 0;  // of all sources, these are [first, first + count)
  Grid<const R> row[kSources];   // [tokens, d]
  const float* ratio[kSources];  // [tokens]
  const float* inverse[kSources];
};
struct SourceGrads {
  Grid<float> row[kSources];
  bool sets[kSources];  // the row holds nothing yet
};
template <typename R, typename Problem>
Sources<R> sources_of(const Problem& p, int64_t first) {
  Sources<R> found;
  found.first = first;
  found.count = p.sources - first < kSources ? p.sources - first : kSources;
  for (int64_t j = 0; j < found.count; ++j) {
    found.row[j] = p.rows[first + j];
    found.ratio[j] = p.ratio[first + j];
    found.inverse[j] = p.inverse[first + j];
  }
  return found;
}
template <typename R>
bool takes_packs(const Sources<R>& sources) {
  bool all = true;
  for (int64_t j = 0; j < sources.count; ++j) all = all && cuda::takes_packs(sources.row[j]);
  return all;
}
template <typename T>
bool takes_packs(const Grids<T>& rows) {
  return cuda::takes_packs(rows[0]) && rows.distance % 4 == 0;
}

template <typename R, int n, int kPacks>
WAVROUTE_KERNEL scalar_rows(SourceScalars<R> s, int64_t rows, RowShape shape) {
  const Team team(shape);
  const int64_t row = block() * shape.teams + team.number;
  const bool is_row = row < rows, is_summary = s.summary.at == s.row.at;
  float square[2] = {};
  if (is_row) {
    team.for_packs<n, kPacks>(s.d, [&](int, int64_t c) {
      float v[n], summary[n];
      load<n>(s.row[row] + c, v);
      load<n>(s.summary[row] + c, summary);
      for (int k = 0; k < n; ++k) {
        square[0] = fused(v[k], v[k], square[0]);
        square[1] = fused(summary[k], summary[k], square[1]);
      }
    });
  }
  team.sum(square);
  if (!is_row || team.lane != 0) return;
  const double d = static_cast<double>(s.d);
  const SourceNumbers found =
      source_numbers(static_cast<double>(square[0]) / d, static_cast<double>(square[1]) / d,
                     is_summary, s.matching_eps, s.norm_eps);
  s.ratio[row] = found.ratio;
  s.inverse[row] = found.inverse;
}

// The softmax of each router is taken as its sources come: what was mixed fades when a larger logit
// does. Where sources.first is not 0, peak, mass and mixed hold those before.
template <typename R, typename M, int n, int kPacks>
WAVROUTE_KERNEL mix_rows(MixFinished<R, M> p, Sources<R> sources, int64_t rows, RowShape shape) {
  const Team team(shape);
  const int64_t row = block() * shape.teams + team.number;
  const bool is_row = row < rows;
  for (int64_t first = 0; first < p.routers; first += kRouters) {
    const int64_t left = p.routers - first;
    const int routers = static_cast<int>(left < kRouters ? left : kRouters);
    float mixed[kRouters][kPacks][n] = {}, peak[kRouters], mass[kRouters];
    WAVROUTE_UNROLL for (int i = 0; i < kRouters; ++i) {
      peak[i] = -infinity();
      mass[i] = 0.0F;
      if (i >= routers || !is_row || sources.first == 0) continue;
      peak[i] = p.peak[first + i][row];
      mass[i] = p.mass[first + i][row];
      team.for_packs<n, kPacks>(
          p.d, [&](int k, int64_t c) { load<n>(p.mixed[first + i][row] + c, mixed[i][k]); });
    }
    for (int64_t j = 0; j < sources.count; ++j) {
      float v[kPacks][n] = {}, dot[kRouters] = {};
      if (is_row) {
        team.for_packs<n, kPacks>(p.d, [&](int at, int64_t c) {
          load<n>(sources.row[j][row] + c, v[at]);
          WAVROUTE_UNROLL for (int i = 0; i < kRouters; ++i) {
            if (i >= routers) continue;
            float q[n];
            load<n>(p.query[first + i] + c, q);
            for (int k = 0; k < n; ++k) dot[i] = fused(q[k], v[at][k], dot[i]);
          }
        });
      }
      team.sum(dot);
      if (!is_row) continue;
      const float ratio = sources.ratio[j][row], key = ratio * sources.inverse[j][row];
      WAVROUTE_UNROLL for (int i = 0; i < kRouters; ++i) {
        if (i >= routers) continue;
        const float logit = fused(key, dot[i], p.bias[first + i][sources.first + j]);
        if (team.lane == 0 && p.logits) p.logits[first + i][sources.first + j][row] = logit;
        const float before = peak[i];
        peak[i] = logit > before || j + sources.first == 0 ? logit : before;
        const float fade = exponential(before - peak[i]), weight = exponential(logit - peak[i]);
        mass[i] = fused(mass[i], fade, weight);
        team.for_packs<n, kPacks>(p.d, [&](int at, int64_t) {
          for (int k = 0; k < n; ++k) {
            mixed[i][at][k] = fused(weight * ratio, v[at][k], fade * mixed[i][at][k]);
          }
        });
      }
    }
    if (!is_row) continue;
    WAVROUTE_UNROLL for (int i = 0; i < kRouters; ++i) {
      if (i >= routers) continue;
      if (team.lane == 0) {
        p.peak[first + i][row] = peak[i];
        p.mass[first + i][row] = mass[i];
      }
      team.for_packs<n, kPacks>(
          p.d, [&](int at, int64_t c) { store<n>(mixed[i][at], p.mixed[first + i][row] + c); });
    }
  }
}

// Partial sums over the rows of a part.
struct MixParts {
  float* query = nullptr;  // [parts, routers, d]
  float* bias = nullptr;   // [parts, routers, sources]
};

// A team takes the rows of one part, for a few routers after the others: they add to the gradients
// of the sources in turn.
template <typename R, typename M, int n, int kPacks>
WAVROUTE_KERNEL mix_backward_rows(MixFinishedBackward<R, M> p, Sources<R> sources,
                                  SourceGrads grads, int64_t rows, int64_t part_rows, MixParts to,
                                  RowShape shape) {
  const Team team(shape);
  const int64_t part = block() * shape.teams + team.number;
  const bool is_part = part * part_rows < rows;
  for (int64_t first = 0; first < p.routers; first += kRouters) {
    const int64_t left = p.routers - first;
    const int routers = static_cast<int>(left < kRouters ? left : kRouters);
    float query_sum[kRouters][kPacks][n] = {};
    for (int64_t r = 0; r < part_rows; ++r) {  // as many for all teams: they meet in sums
      const int64_t row = part * part_rows + r;
      const bool is_row = row < rows;
      float dh[kRouters][kPacks][n] = {};
      if (is_row) {
        WAVROUTE_UNROLL for (int i = 0; i < kRouters; ++i) {
          if (i >= routers) continue;
          team.for_packs<n, kPacks>(
              p.d, [&](int at, int64_t c) { load<n>(p.dh[first + i][row] + c, dh[i][at]); });
        }
      }
      for (int64_t j = 0; j < sources.count; ++j) {
        float v[kPacks][n] = {}, dot[kRouters] = {};
        if (is_row) {
          team.for_packs<n, kPacks>(p.d, [&](int at, int64_t c) {
            load<n>(sources.row[j][row] + c, v[at]);
            WAVROUTE_UNROLL for (int i = 0; i < kRouters; ++i) {
              for (int k = 0; k < n; ++k) dot[i] = fused(dh[i][at][k], v[at][k], dot[i]);
            }
          });
        }
        team.sum(dot);
        if (!is_row) continue;
        const float ratio = sources.ratio[j][row], key = ratio * sources.inverse[j][row];
        float value_weight[kRouters] = {}, key_weight[kRouters] = {}, decay = 0.0F;
        WAVROUTE_UNROLL for (int i = 0; i < kRouters; ++i) {
          if (i >= routers) continue;
          const int64_t source = sources.first + j;
          const float logit = p.logits[first + i][source][row];
          const float a = exponential(logit - p.lse[first + i][row]);
          const float dlogit = a * fused(ratio, dot[i], -p.along[first + i][row]);
          value_weight[i] = a * ratio;
          key_weight[i] = dlogit * key;
          decay += dlogit * (logit - p.bias[first + i][source]);
          if (team.lane != 0) continue;
          float* const sum = to.bias + (part * p.routers + first + i) * p.sources + source;
          *sum = r == 0 ? dlogit : *sum + dlogit;
        }
        decay = key * (decay / static_cast<float>(p.d)) * key;
        const bool sets = grads.sets[j] && first == 0;
        team.for_packs<n, kPacks>(p.d, [&](int at, int64_t c) {
          float g[n] = {};
          if (!sets) load<n>(grads.row[j][row] + c, g);
          for (int k = 0; k < n; ++k) g[k] = fused(-decay, v[at][k], g[k]);
          WAVROUTE_UNROLL for (int i = 0; i < kRouters; ++i) {
            if (i >= routers) continue;
            float q[n];
            load<n>(p.query[first + i] + c, q);
            for (int k = 0; k < n; ++k) {
              g[k] = fused(value_weight[i], dh[i][at][k], g[k]);
              g[k] = fused(key_weight[i], q[k], g[k]);
              query_sum[i][at][k] = fused(key_weight[i], v[at][k], query_sum[i][at][k]);
            }
          }
          store<n>(g, grads.row[j][row] + c);
        });
      }
    }
    if (!is_part) continue;
    WAVROUTE_UNROLL for (int i = 0; i < kRouters; ++i) {
      if (i >= routers) continue;
      team.for_packs<n, kPacks>(p.d, [&](int at, int64_t c) {
        store<n>(query_sum[i][at], to.query + (part * p.routers + first + i) * p.d + c);
      });
    }
  }
}

}  // namespace

template <typename R>
void source_scalars(const SourceScalars<R>& s, int64_t rows, Stream stream) {
  const bool in_packs = s.d % 4 == 0 && cuda::takes_packs(s.row) && cuda::takes_packs(s.summary);
  with_packs(in_packs, s.d, [&]<int n, int kPacks>(const RowShape& shape) {
    launch(scalar_rows<R, n, kPacks>, shape.launch(rows, 2), stream, s, rows, shape);
  });
}

template <typename R, typename M>
void mix(const MixFinished<R, M>& p, int64_t rows, Stream stream) {
  for (int64_t first = 0; first < p.sources; first += kSources) {
    const auto sources = sources_of<R>(p, first);
    const bool in_packs =
        p.d % 4 == 0 && takes_packs(sources) && cuda::takes_packs(p.query) && takes_packs(p.mixed);
    with_packs(in_packs, p.d, [&]<int n, int kPacks>(const RowShape& shape) {
      launch(mix_rows<R, M, n, kPacks>, shape.launch(rows, kRouters), stream, p, sources, rows,
             shape);
    });
  }
}

int64_t mix_backward_floats(int64_t rows, int64_t d, int64_t routers, int64_t sources) {
  return part_count(rows) * routers * (d + sources);
}

template <typename R, typename M>
void mix_backward(const MixFinishedBackward<R, M>& p, int64_t rows, float* scratch, Stream stream) {
  const int64_t part_rows = rows_of_part(rows), parts = part_count(rows);
  const MixParts to = {scratch, scratch + parts * p.routers * p.d};
  for (int64_t first = 0; first < p.sources; first += kSources) {
    const auto sources = sources_of<R>(p, first);
    SourceGrads grads;
    bool in_packs = p.d % 4 == 0 && takes_packs(sources) && cuda::takes_packs(p.query) &&
                    takes_packs(p.dh) && cuda::takes_packs(scratch);
    for (int64_t j = 0; j < sources.count; ++j) {
      grads.row[j] = p.grads[first + j];
      grads.sets[j] = p.first[first + j];
      in_packs = in_packs && cuda::takes_packs(grads.row[j]);
    }
    with_packs(in_packs, p.d, [&]<int n, int kPacks>(const RowShape& shape) {
      launch(mix_backward_rows<R, M, n, kPacks>, shape.launch(parts, kRouters), stream, p, sources,
             grads, rows, part_rows, to, shape);
    });
    add_parts_to(to.query, parts, p.routers * p.d, p.query_grad, p.d, stream);
  }
  add_parts_to(to.bias, parts, p.routers * p.sources, p.bias_grad, p.sources, stream);
}

template void source_scalars(const SourceScalars<float>&, int64_t, Stream);
template void source_scalars(const SourceScalars<Bf16>&, int64_t, Stream);
template void mix(const MixFinished<float, float>&, int64_t, Stream);
template void mix(const MixFinished<float, Bf16>&, int64_t, Stream);
template void mix(const MixFinished<Bf16, float>&, int64_t, Stream);
template void mix(const MixFinished<Bf16, Bf16>&, int64_t, Stream);
template void mix_backward(const MixFinishedBackward<float, float>&, int64_t, float*, Stream);
template void mix_backward(const MixFinishedBackward<float, Bf16>&, int64_t, float*, Stream);
template void mix_backward(const MixFinishedBackward<Bf16, float>&, int64_t, float*, Stream);
template void mix_backward(const MixFinishedBackward<Bf16, Bf16>&, int64_t, float*, Stream);

}  // namespace wavroute::kernels::cuda
