#include "base/thread_pool.h"

#include <signal.h>

#include <algorithm>
#include <optional>
#include <system_error>
#include <utility>

namespace wavroute {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kPausesPerLook = 16;  // reading the clock costs about as much as one pause

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

constexpr uint64_t packed(uint64_t begin, uint64_t end) { return begin << 32 | end; }
constexpr uint32_t begin_of(uint64_t range) { return static_cast<uint32_t>(range >> 32); }
constexpr uint32_t end_of(uint64_t range) { return static_cast<uint32_t>(range); }

// Only `left` counts: if it is unchanged, the chunk may be taken, even if a loop has ended and
// another has begun since it was read.
std::optional<uint32_t> take(std::atomic<uint64_t>& left, bool from_front) {
  uint64_t range = left.load(std::memory_order_acquire);
  while (begin_of(range) < end_of(range)) {
    const uint64_t rest = from_front ? packed(begin_of(range) + 1, end_of(range)) : range - 1;
    if (left.compare_exchange_weak(range, rest, std::memory_order_acq_rel,
                                   std::memory_order_acquire)) {
      return from_front ? begin_of(range) : end_of(range) - 1;
    }
  }
  return std::nullopt;
}

// While it exists, threads that are started block the signals meant for the process.
class BlockedSignals {
 public:
  BlockedSignals() {
    sigset_t all;
    sigfillset(&all);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) sigdelset(&all, fault);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~BlockedSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  BlockedSignals(const BlockedSignals&) = delete;
  BlockedSignals& operator=(const BlockedSignals&) = delete;

 private:
  sigset_t before_{};
};

}  // namespace

ThreadPool::ThreadPool(int threads, const std::function<void(int)>& at_start,
                       std::chrono::microseconds spin)
    : spin_(spin), ranges_(static_cast<size_t>(std::max(threads, 1))) {
  const BlockedSignals blocked;
  try {
    for (int thread = 1; thread < threads; ++thread) {
      others_.emplace_back([this, thread, at_start] {
        if (at_start) at_start(thread);
        work(thread);
      });
    }
  } catch (const std::system_error&) {
    // The system allows no more threads: the existing ones take the chunks of the missing ones.
  }
}

ThreadPool::~ThreadPool() {
  stopping_ = true;
  loops_.fetch_add(1);
  loops_.notify_all();
  for (std::thread& other : others_) other.join();
}

void ThreadPool::work(int thread) {
  for (;;) {
    const uint32_t seen = loops_.load(std::memory_order_acquire);
    if (stopping_) return;
    take_chunks(thread);
    wait_while(loops_, seen);
  }
}

// Waits until `value` is no longer `old`.
void ThreadPool::wait_while(const std::atomic<uint32_t>& value, uint32_t old) const {
  const auto end = Clock::now() + spin_;
  do {
    for (int i = 0; i < kPausesPerLook; ++i) {
      if (value.load(std::memory_order_acquire) != old) return;
      pause();
    }
  } while (Clock::now() < end);
  value.wait(old, std::memory_order_acquire);
}

void ThreadPool::call(uint32_t chunk, int thread) {
  if (failed_.load(std::memory_order_relaxed)) return;
  try {
    (*body_)(chunk, thread);
  } catch (...) {
    const std::lock_guard lock(exception_mutex_);
    if (!exception_) exception_ = std::current_exception();
    failed_ = true;
  }
}

// Its own chunks, then those that other threads have not reached.
void ThreadPool::take_chunks(int thread) {
  const int count = threads();
  uint32_t done = 0;
  for (int i = 0; i < count; ++i) {
    const int owner = (thread + i) % count;
    auto& left = ranges_[static_cast<size_t>(owner)].left;
    while (const auto chunk = take(left, owner == thread)) {
      call(*chunk, thread);
      ++done;
    }
  }
  if (done == 0) return;
  if (unfinished_.fetch_sub(done, std::memory_order_acq_rel) == done) unfinished_.notify_one();
}

void ThreadPool::wait_for_others() {
  for (;;) {
    const uint32_t unfinished = unfinished_.load(std::memory_order_acquire);
    if (unfinished == 0) return;
    wait_while(unfinished_, unfinished);
  }
}

void ThreadPool::run(int64_t count, const std::function<void(int64_t, int)>& body) {
  if (count <= 0) return;
  body_ = &body;
  unfinished_.store(static_cast<uint32_t>(count), std::memory_order_relaxed);
  const auto parts = static_cast<int64_t>(ranges_.size());
  for (int64_t part = 0; part < parts; ++part) {
    const auto begin = static_cast<uint64_t>(count * part / parts);
    const auto end = static_cast<uint64_t>(count * (part + 1) / parts);
    ranges_[static_cast<size_t>(part)].left.store(packed(begin, end), std::memory_order_release);
  }
  loops_.fetch_add(1);
  if (count > static_cast<int64_t>(others_.size())) {
    loops_.notify_all();
  } else {
    for (int64_t i = 1; i < count; ++i) loops_.notify_one();
  }
  take_chunks(0);
  wait_for_others();
  if (failed_) {
    failed_ = false;
    std::rethrow_exception(std::exchange(exception_, nullptr));
  }
}

}  // namespace wavroute
