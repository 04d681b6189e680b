#include "ops/parallel.h"

#include <ATen/Parallel.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "base/thread_pool.h"
#include "ops/spin_time.h"

// From the OpenMP library of libtorch's own loops, and from its MKL; null if it has none.
extern "C" int omp_get_max_threads();
extern "C" void omp_set_num_threads(int threads);  // of the calling thread
// The places that the user bound threads to (OMP_PLACES, OMP_PROC_BIND, GOMP_CPU_AFFINITY), if any.
extern "C" int omp_get_num_places();
extern "C" int omp_get_place_num_procs(int place);
extern "C" void omp_get_place_proc_ids(int place, int* ids);
extern "C" [[gnu::weak]] int MKL_Set_Num_Threads_Local(int threads);  // returns the previous number

namespace wavroute::ops {
namespace {

// More parts than threads, so that a descheduled thread leaves some to others.
constexpr int64_t kPartsPerThread = 4;

thread_local int current_thread = -1;  // within a body: its thread's index

int set_openmp_threads(int threads) {
  const int before = omp_get_max_threads();
  omp_set_num_threads(threads);
  return before;
}

int set_mkl_threads(int threads) {
  return MKL_Set_Num_Threads_Local == nullptr ? 0 : MKL_Set_Num_Threads_Local(threads);
}

// While it exists, this thread belongs to a loop.
class InLoop {
 public:
  InLoop() : openmp_before_(set_openmp_threads(1)), mkl_before_(set_mkl_threads(1)) {
    current_thread = 0;
  }
  ~InLoop() {
    current_thread = -1;
    set_mkl_threads(mkl_before_);
    set_openmp_threads(openmp_before_);
  }
  InLoop(const InLoop&) = delete;
  InLoop& operator=(const InLoop&) = delete;

 private:
  int openmp_before_, mkl_before_;
};

// Within a body, while it lives: its thread is the only one of another loop.
class PlainLoop {
 public:
  PlainLoop() : before_(std::exchange(current_thread, 0)) {}
  ~PlainLoop() { current_thread = before_; }
  PlainLoop(const PlainLoop&) = delete;
  PlainLoop& operator=(const PlainLoop&) = delete;

 private:
  int before_;
};

// If OpenMP has bound the thread that started this one, this one is bound to the same cores;
// otherwise it goes where OpenMP's own threads would.
void go_to_place(int thread) {
  const int places = omp_get_num_places();
  if (places <= 0) return;
  const int place = thread % places;
  std::vector<int> ids(static_cast<size_t>(omp_get_place_num_procs(place)));
  omp_get_place_proc_ids(place, ids.data());
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int id : ids) {
    if (id < CPU_SETSIZE) CPU_SET(static_cast<size_t>(id), &set);
  }
  static_cast<void>(
      sched_setaffinity(0, sizeof set, &set));  // of this thread; on failure it stays there
}

// A thread of the pool always counts as inside a loop.
void enter_for_good(int thread) {
  go_to_place(thread);
  static_cast<void>(at::get_num_threads());  // libtorch initialises a thread at the first call
  set_openmp_threads(1);
  set_mkl_threads(1);
}

// Never destroyed: at the end of the process, threads may still look for work.
struct Team {
  std::mutex busy;
  std::unique_ptr<ThreadPool> pool;
  pid_t process = 0;
};

Team& team() {
  static Team* const only = new Team;
  return *only;
}

// The pool of `team`, whose lock the caller holds, with `threads` threads.
ThreadPool& pool_of(Team& team, int threads) {
  if (team.process != getpid()) {  // after a fork the threads are the parent's alone
    static_cast<void>(team.pool.release());
    team.process = getpid();
  }
  if (!team.pool || team.pool->threads() != threads) {
    team.pool.reset();
    team.pool = std::make_unique<ThreadPool>(
        threads, enter_for_good,
        spin_time(std::getenv("GOMP_SPINCOUNT"), std::getenv("WAVROUTE_SPINCOUNT"),
                  std::getenv("OMP_WAIT_POLICY")));
  }
  return *team.pool;
}

// body(chunk) for each chunk in [0, count).
void run_chunks(int64_t count, const std::function<void(int64_t chunk)>& body) {
  const auto one_by_one = [&] {
    for (int64_t chunk = 0; chunk < count; ++chunk) body(chunk);
  };
  if (current_thread >= 0) {
    const PlainLoop plain;
    return one_by_one();
  }
  const int threads = at::get_num_threads();
  const bool alone = threads == 1 || count == 1 || at::in_parallel_region();
  const InLoop in_loop;
  if (alone) return one_by_one();
  const std::unique_lock lock(team().busy, std::try_to_lock);
  if (!lock) return one_by_one();
  pool_of(team(), threads).run(count, [&](int64_t chunk, int thread) {
    current_thread = thread;
    body(chunk);
  });
}

}  // namespace

int thread_index() { return std::max(current_thread, 0); }

void parallel_for(int64_t count, const std::function<void(int64_t, int64_t)>& body, int64_t least) {
  if (count <= 0) return;
  const int64_t threads = current_thread >= 0 ? 1 : at::get_num_threads();
  const int64_t most = std::max(count / std::max(least, int64_t{1}), int64_t{1});
  const int64_t parts = threads == 1 ? 1 : std::min(most, threads * kPartsPerThread);
  const int64_t length = count / parts, longer = count % parts;  // as many parts have one more
  const auto begin_of = [&](int64_t part) { return part * length + part * longer / parts; };
  run_chunks(parts, [&](int64_t part) { body(begin_of(part), begin_of(part + 1)); });
}

void for_chunks(int64_t count, const std::function<void(int64_t, int64_t, int64_t)>& body,
                int64_t per_chunk) {
  run_chunks(chunk_count(count, per_chunk), [&](int64_t chunk) {
    const int64_t begin = chunk * per_chunk;
    body(chunk, begin, std::min(begin + per_chunk, count));
  });
}

}  // namespace wavroute::ops
