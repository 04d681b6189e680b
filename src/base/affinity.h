// The processors that this process was given, whatever OpenMP has made of them since.
//
// Where the user binds OpenMP's threads (OMP_PROC_BIND, OMP_PLACES, GOMP_CPU_AFFINITY), its library
// binds the first thread to one place before main(). That place is not all that there is, and a
// child of that thread would get no more.
#pragma once

#include <sched.h>

namespace wavroute {

// Keeps the processors of this process as those that it was given. Call it before OpenMP's library
// is set up; it asks for no memory.
void keep_given_processors() noexcept;

// The number of processors that this process was given; those of the calling thread where nobody
// has kept them. At least 1.
[[nodiscard]] int given_processors() noexcept;

// While it lives, what the calling thread starts gets all processors that this process was given.
class OnGivenProcessors {
 public:
  OnGivenProcessors() noexcept;
  ~OnGivenProcessors();
  OnGivenProcessors(const OnGivenProcessors&) = delete;
  OnGivenProcessors& operator=(const OnGivenProcessors&) = delete;

 private:
  cpu_set_t before_;
  bool moved_ = false;
};

}  // namespace wavroute
