#include "base/threads.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "wavroute/error.h"

namespace wavroute {
namespace {

// More threads than cores only wait for each other, but a run from a larger machine can be repeated
// with its number of threads.
constexpr int64_t kMostAnywhere = 256, kMostPerCore = 4;

// The first number of OMP_NUM_THREADS ("4", "4,2": of the nested loops). Nothing if it is not a
// number above 0: OpenMP itself warns of that and ignores it.
std::optional<int64_t> from_environment(const char* name) {
  const char* text = std::getenv(name);
  if (text == nullptr) return std::nullopt;
  while (*text == ' ') ++text;
  int64_t value = 0;
  const auto [rest, error] = std::from_chars(text, text + std::strlen(text), value);
  if (error != std::errc() || value <= 0) return std::nullopt;
  if (*rest != '\0' && *rest != ',' && *rest != ' ') return std::nullopt;
  return value;
}

}  // namespace

int threads_to_use(int64_t wanted, const Machine& machine) {
  std::string from;
  if (wanted == 0) {
    const auto given = from_environment("OMP_NUM_THREADS");
    if (given) from = " by OMP_NUM_THREADS";
    wanted = given.value_or(machine.cores);
    if (const auto limit = from_environment("OMP_THREAD_LIMIT")) wanted = std::min(wanted, *limit);
  }
  const int64_t most = std::max(kMostAnywhere, kMostPerCore * machine.cores);
  if (wanted < 1 || wanted > most) {
    throw expected(
        fmt::format("at most {} threads on a machine with {} cores to use", most, machine.cores),
        fmt::format("{}{}", wanted, from), {}, "0 takes OMP_NUM_THREADS, or one for each core");
  }
  return static_cast<int>(wanted);
}

}  // namespace wavroute
