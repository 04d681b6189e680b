// Threads that share a loop, made for a machine that other programs use too. Torch-free.
//
// A chunk is handed out when a thread asks for it, and a loop waits only for threads that hold one:
// a thread that the system has not scheduled takes fewer chunks and delays no other. A thread
// without work spins for some microseconds, in which the next loop usually begins, then sleeps and
// frees its core.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace wavroute {

class ThreadPool {
 public:
  // While it spins, a thread without work finds the next loop at once.
  static constexpr std::chrono::microseconds kSpin{100};

  // `threads` include the caller of run() (index 0); there are fewer if the system allows no more.
  // Each of the others calls `at_start` with its index first. A thread that waits spins for `spin`,
  // then sleeps.
  explicit ThreadPool(int threads, const std::function<void(int thread)>& at_start = {},
                      std::chrono::microseconds spin = kSpin);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // The requested number: thread indices are below it.
  [[nodiscard]] int threads() const { return static_cast<int>(ranges_.size()); }

  // The most chunks that a loop may have.
  static constexpr int64_t kMostChunks = UINT32_MAX / 2;

  // Calls body(chunk, thread) once for each chunk in [0, count), from several threads at once:
  // neighbouring chunks mostly from the same thread, and from the same one in the next loop of the
  // same length. Returns when all are done. If calls throw, the others may be left out, and the
  // first exception is thrown again. One loop at a time: not from two threads at once, and not from
  // a body.
  void run(int64_t count, const std::function<void(int64_t chunk, int thread)>& body);

 private:
  // What is left of the chunks that a thread is to take: [begin, end) in the upper and lower half
  // of one number. Its owner takes from the front, the others from the back.
  struct alignas(64) Range {
    std::atomic<uint64_t> left{0};
  };

  void work(int thread);
  void wait_while(const std::atomic<uint32_t>& value, uint32_t old) const;
  void take_chunks(int thread);
  void call(uint32_t chunk, int thread);
  void wait_for_others();

  const std::chrono::microseconds spin_;

  // Of the current loop. A thread reads these while it holds a chunk, which keeps the loop from
  // ending.
  const std::function<void(int64_t, int)>* body_ = nullptr;
  std::mutex exception_mutex_;
  std::exception_ptr exception_;
  std::atomic<bool> failed_ = false;

  std::vector<Range> ranges_;                         // one per thread
  alignas(64) std::atomic<uint32_t> unfinished_ = 0;  // chunks of the current loop
  alignas(64) std::atomic<uint32_t> loops_ = 0;       // that have begun, or stopping
  std::atomic<bool> stopping_ = false;
  std::vector<std::thread> others_;
};

}  // namespace wavroute
