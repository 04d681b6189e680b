#include "kernels/cuda/routers.h"

#include "kernels/cuda/device.h"
#include "kernels/route.h"

namespace wavroute::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kRouters = 32, kSources = 1024;  // of one launch: they are passed by value
constexpr int kDetails = kMostRunning - 1;

struct Routers {
  RouterPointers at[kRouters];
};
// Of all sources, these are [first, first + count).
struct Sums {
  int64_t first = 0, count = 0;
  uint8_t of[kSources];
};
Sums sums_of(const int64_t* sums, int64_t sources, int64_t first) {
  Sums found;
  found.first = first;
  found.count = sources - first < kSources ? sources - first : kSources;
  for (int64_t j = 0; j < found.count; ++j) found.of[j] = static_cast<uint8_t>(sums[first + j]);
  return found;
}

// Calls body(routers, first, count, sums) for groups that a launch can be given.
template <typename Args, typename Body>
void for_groups(const Args& args, const Body& body) {
  for (int64_t first = 0; first < args.count; first += kRouters) {
    Routers routers;
    const int64_t count = args.count - first < kRouters ? args.count - first : kRouters;
    for (int64_t r = 0; r < count; ++r) routers.at[r] = args.routers[first + r];
    int64_t source = 0;
    do {
      body(routers, first, count, sums_of(args.sums, args.sources, source));
      source += kSources;
    } while (source < args.sources);
  }
}

// A block takes a router.
WAVROUTE_KERNEL gather_rows(GatherRouters g, Routers routers, int64_t first, Sums sums) {
  const RouterPointers router = routers.at[block()];
  const int64_t row = first + block();
  const bool reads = router.query != nullptr, has_bias = router.bias != nullptr;
  if (sums.first == 0) {
    for (int64_t c = thread(); c < g.d; c += kThreads) {
      g.query[row][c] = reads ? router.query[c] * router.gain[c] : 0.0F;
    }
    for (int64_t s = thread(); s < g.running; s += kThreads) {
      g.running_bias[row][s] = has_bias && s > 0 ? router.bias[s - 1] : 0.0F;
    }
  }
  for (int64_t j = thread(); j < sums.count; j += kThreads) {
    const int sum = sums.of[j];
    g.bias[row][sums.first + j] = has_bias && sum > 0 ? router.bias[sum - 1] : 0.0F;
  }
}

WAVROUTE_KERNEL add_grads(AddRouterGrads a, Routers routers, int64_t first, Sums sums) {
  const RouterPointers router = routers.at[block()];
  const int64_t row = first + block();
  for (int64_t c = thread(); c < a.d && sums.first == 0; c += kThreads) {
    const float t = a.query_grad[row][c];
    router.query_grad[c] += router.gain[c] * t;
    router.gain_grad[c] += router.query[c] * t;
  }
  const int detail = thread() + 1;
  if (detail > kDetails || router.bias == nullptr) return;
  float sum = 0.0F;
  bool any = false;
  for (int64_t j = 0; j < sums.count; ++j) {
    if (sums.of[j] != detail) continue;
    sum += a.bias_grad[row][sums.first + j];
    any = true;
  }
  if (any) router.bias_grad[detail - 1] += sum;
}

}  // namespace

void gather_routers(const GatherRouters& args, Stream stream) {
  for_groups(args, [&](const Routers& routers, int64_t first, int64_t count, const Sums& sums) {
    launch(gather_rows, {count, kThreads, 0}, stream, args, routers, first, sums);
  });
}

void add_router_grads(const AddRouterGrads& args, Stream stream) {
  for_groups(args, [&](const Routers& routers, int64_t first, int64_t count, const Sums& sums) {
    launch(add_grads, {count, kThreads, 0}, stream, args, routers, first, sums);
  });
}

}  // namespace wavroute::kernels::cuda
