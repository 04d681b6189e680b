#include "kernels/cuda/emulator.h"

#include <ucontext.h>

#include <algorithm>
#include <csetjmp>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <span>
#include <stdexcept>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace wavroute::kernels::cuda::emulator {
namespace {

constexpr int kWarp = 32;
constexpr size_t kStackBytes = size_t{256} << 10, kMostFibres = 1024;

enum class Wait { kNone, kBarrier, kShuffle, kDone };

// Tells the address sanitizer which stack is in use.
#if defined(__SANITIZE_ADDRESS__)
void leave_stack(void** kept, const void* bottom, size_t bytes) {
  __sanitizer_start_switch_fiber(kept, bottom, bytes);
}
void enter_stack(void* kept, const void** bottom, size_t* bytes) {
  __sanitizer_finish_switch_fiber(kept, bottom, bytes);
}
#else
void leave_stack(void** /*kept*/, const void* /*bottom*/, size_t /*bytes*/) {}
void enter_stack(void* /*kept*/, const void** /*bottom*/, size_t* /*bytes*/) {}
#endif

struct Fibre {
  ucontext_t context = {};  // where it begins
  std::jmp_buf place = {};  // where it waits; without the system calls of swapcontext
  bool is_new = true;       // it has not begun, or what it was at is given up
  std::unique_ptr<char[]> stack;
  void* fake_stack = nullptr;
  Wait wait = Wait::kNone;
  const void* given = nullptr;  // of a shuffle
  void* taken = nullptr;
  size_t bytes = 0;
  int lane = 0;  // whose numbers it wants
};

Order order = Order::kForwards;
Recorder recorder;

// Fibres are kept from launch to launch, each in a loop over the threads that it is: to begin one
// costs system calls and the pages of a stack, more than most kernels.
std::span<Fibre> first_fibres(size_t count) {
  static std::vector<Fibre> kept(kMostFibres);
  return {kept.data(), count};
}

// The launch that runs.
class Launch {
 public:
  Launch(int64_t blocks, int threads, size_t shared_bytes, const std::function<void()>& thread)
      : blocks_(blocks),
        threads_(threads),
        shared_((shared_bytes + sizeof(max_align_t) - 1) / sizeof(max_align_t)),
        thread_(thread),
        fibres_(first_fibres(static_cast<size_t>(threads))),
        turns_(static_cast<size_t>(threads)) {
    std::iota(turns_.begin(), turns_.end(), 0);
    if (order == Order::kBackwards) std::ranges::reverse(turns_);
    if (order == Order::kShuffled) std::ranges::shuffle(turns_, std::mt19937(7));
  }

  void run();
  void wait(Wait what);

  Fibre& current() { return fibres_[static_cast<size_t>(now_)]; }
  [[nodiscard]] int thread() const { return now_; }
  [[nodiscard]] int threads() const { return threads_; }
  [[nodiscard]] int64_t block() const { return block_; }
  [[nodiscard]] int64_t blocks() const { return blocks_; }
  [[nodiscard]] void* shared() { return shared_.data(); }

 private:
  static void begin();
  void resume(int thread);
  void enter(Fibre& fibre);
  void run_block();
  // Lets those go on who wait for each other and are all there; whether there were any.
  bool release();
  bool release_warp(std::span<Fibre> lanes);

  int64_t blocks_;
  int threads_;
  std::vector<max_align_t> shared_;
  const std::function<void()>& thread_;
  std::span<Fibre> fibres_;
  std::vector<int> turns_;
  std::jmp_buf host_ = {};
  void* host_fake_stack_ = nullptr;
  const void* host_bottom_ = nullptr;
  size_t host_bytes_ = 0;
  int64_t block_ = 0;
  int now_ = 0;
};

Launch* launch = nullptr;

void Launch::wait(Wait what) {
  Fibre& fibre = current();
  fibre.wait = what;
  leave_stack(&fibre.fake_stack, host_bottom_, host_bytes_);
  if (_setjmp(fibre.place) == 0) _longjmp(host_, 1);
  // A fibre that was done may go on in another launch than this one, which is gone then.
  enter_stack(fibre.fake_stack, &launch->host_bottom_, &launch->host_bytes_);
}

void Launch::begin() {
  enter_stack(nullptr, &launch->host_bottom_, &launch->host_bytes_);
  for (;;) {
    launch->thread_();
    launch->wait(Wait::kDone);  // until it is a thread of another block or launch
  }
}

// Begins a fibre on its stack.
void Launch::enter(Fibre& fibre) {
  fibre.is_new = false;
  getcontext(&fibre.context);
  fibre.context.uc_stack.ss_sp = fibre.stack.get();
  fibre.context.uc_stack.ss_size = kStackBytes;
  fibre.context.uc_link = nullptr;
  makecontext(&fibre.context, &Launch::begin, 0);
  setcontext(&fibre.context);
}

void Launch::resume(int thread) {
  now_ = thread;
  std::unique_ptr<char[]>& stack = current().stack;
  if (stack == nullptr) stack = std::make_unique_for_overwrite<char[]>(kStackBytes);
  leave_stack(&host_fake_stack_, stack.get(), kStackBytes);
  if (_setjmp(host_) == 0) {
    if (!current().is_new) _longjmp(current().place, 1);
    enter(current());
  }
  enter_stack(host_fake_stack_, nullptr, nullptr);
}

bool Launch::release_warp(std::span<Fibre> lanes) {
  const auto shuffles = [](const Fibre& fibre) { return fibre.wait == Wait::kShuffle; };
  if (!std::ranges::all_of(lanes, shuffles)) return false;
  for (Fibre& fibre : lanes) {
    std::memcpy(fibre.taken, lanes[static_cast<size_t>(fibre.lane)].given, fibre.bytes);
  }
  for (Fibre& fibre : lanes) fibre.wait = Wait::kNone;
  return true;
}

bool Launch::release() {
  const auto waits = [](const Fibre& fibre) { return fibre.wait == Wait::kBarrier; };
  if (std::ranges::all_of(fibres_, waits)) {
    for (Fibre& fibre : fibres_) fibre.wait = Wait::kNone;
    return true;
  }
  bool any = false;
  for (size_t first = 0; first < fibres_.size(); first += kWarp) {
    any = release_warp({&fibres_[first], kWarp}) || any;
  }
  return any;
}

void Launch::run_block() {
  for (Fibre& fibre : fibres_) fibre.wait = Wait::kNone;
  do {
    for (const int thread : turns_) {
      if (fibres_[static_cast<size_t>(thread)].wait == Wait::kNone) resume(thread);
    }
  } while (release());
  if (std::ranges::any_of(fibres_, [](const Fibre& f) { return f.wait != Wait::kDone; })) {
    for (Fibre& fibre : fibres_) fibre.is_new = true;
    throw std::logic_error("threads of a block wait for others that went another way");
  }
}

void Launch::run() {
  launch = this;
  for (block_ = 0; block_ < blocks_; ++block_) run_block();
}

}  // namespace

void set_order(Order wanted) { order = wanted; }

void run(int64_t blocks, int threads, size_t shared_bytes, const std::function<void()>& thread) {
  if (threads < 1 || threads % kWarp != 0 || threads > 1024) {
    throw std::logic_error("a block has whole warps, 1024 threads at most");
  }
  Launch(blocks, threads, shared_bytes, thread).run();
}

void set_recorder(Recorder wanted) { recorder = std::move(wanted); }
bool is_recorded() { return recorder != nullptr; }
void give_to_recorder(std::function<void()> launch_later) { recorder(std::move(launch_later)); }

int thread() { return launch->thread(); }
int threads() { return launch->threads(); }
int64_t block() { return launch->block(); }
int64_t blocks() { return launch->blocks(); }
void* shared() { return launch->shared(); }
void barrier() { launch->wait(Wait::kBarrier); }

void exchange(const void* given, void* taken, size_t bytes, int lane) {
  Fibre& fibre = launch->current();
  fibre.given = given, fibre.taken = taken, fibre.bytes = bytes, fibre.lane = lane;
  launch->wait(Wait::kShuffle);
}

}  // namespace wavroute::kernels::cuda::emulator
