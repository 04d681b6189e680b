#include "base/affinity.h"

#include <algorithm>
#include <cerrno>

namespace wavroute {
namespace {

cpu_set_t given;  // written before main()
bool is_kept = false;

}  // namespace

void keep_given_processors() noexcept { is_kept = sched_getaffinity(0, sizeof given, &given) == 0; }

int given_processors() noexcept {
  cpu_set_t own;
  if (is_kept) return std::max(1, CPU_COUNT(&given));
  return sched_getaffinity(0, sizeof own, &own) == 0 ? std::max(1, CPU_COUNT(&own)) : 1;
}

OnGivenProcessors::OnGivenProcessors() noexcept {
  if (!is_kept || sched_getaffinity(0, sizeof before_, &before_) != 0) return;
  if (CPU_EQUAL(&before_, &given)) return;
  moved_ = sched_setaffinity(0, sizeof given, &given) == 0;
}

OnGivenProcessors::~OnGivenProcessors() {
  const int error = errno;  // of what was started
  if (moved_) sched_setaffinity(0, sizeof before_, &before_);
  errno = error;
}

}  // namespace wavroute
