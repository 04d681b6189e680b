#include "ops/spin_time.h"

#include <strings.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "base/thread_pool.h"

namespace wavroute::ops {
namespace {

// "30000", "30k", "infinite", as libgomp reads them; negative for anything else.
double spins_of(const char* text) {
  char* end = nullptr;
  const double number = std::strtod(text, &end);
  if (end == text) return -1.0;
  constexpr std::string_view kThousands = "kmgt";
  const size_t power = kThousands.find(static_cast<char>(std::tolower(*end)));
  return power == kThousands.npos ? number
                                  : number * std::pow(1000.0, static_cast<double>(power + 1));
}

}  // namespace

std::chrono::microseconds spin_time(const char* count, const char* ours, const char* policy) {
  constexpr double kOneSpin = 0.04, kMost = 1e12;  // microseconds
  constexpr double kActive = 30e9;                 // spins, as libgomp has it
  const auto says = [&](const char* word) {
    return policy != nullptr && strcasecmp(policy, word) == 0;
  };
  double spins = says("active") ? kActive : says("passive") ? 0.0 : -1.0;
  const bool is_users = count != nullptr && (ours == nullptr || std::strcmp(count, ours) != 0);
  if (const double own = is_users ? spins_of(count) : -1.0; own >= 0.0) spins = own;
  if (!(spins >= 0.0)) return ThreadPool::kSpin;
  return std::chrono::microseconds(static_cast<int64_t>(std::min(spins * kOneSpin, kMost)));
}

}  // namespace wavroute::ops
