// Runs kernels for GPUs on the host: a fibre for each thread of a block, one block after the other.
// device.h stands on it where the compiler is not nvcc, so that the very source of a kernel, with
// its barriers and shuffles, is tested without a GPU and under sanitizers.
//
// A barrier that not all threads of a block reach, a shuffle that not all lanes of a warp reach and
// memory shared without a barrier between are faults on a device that may go unseen there. Here the
// first two end with an error, and the third gives other numbers in another order of the threads:
// tests run every kernel in several.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace wavroute::kernels::cuda::emulator {

// In which order the threads of a block run up to their next barrier.
enum class Order { kForwards, kBackwards, kShuffled };
// Of launches from here on; kForwards at first.
void set_order(Order order);

// One launch: calls `thread` in a fibre for each thread of each block. Throws std::logic_error for
// threads that wait for each other in vain.
void run(int64_t blocks, int threads, size_t shared_bytes, const std::function<void()>& thread);

// Who gets the launches from here on, to make them later; null: nobody, they are made at once.
using Recorder = std::function<void(std::function<void()> launch)>;
void set_recorder(Recorder recorder);
[[nodiscard]] bool is_recorded();
void give_to_recorder(std::function<void()> launch);

// Of the thread that calls, which run() started.
[[nodiscard]] int thread();
[[nodiscard]] int threads();
[[nodiscard]] int64_t block();
[[nodiscard]] int64_t blocks();
// The block's own memory, as many bytes as run() was given, aligned as for any type. Its content at
// the start is that of a block before.
[[nodiscard]] void* shared();
void barrier();
// Copies `bytes` bytes from what lane `lane` of the same warp gives; all lanes of a warp call it
// together.
void exchange(const void* given, void* taken, size_t bytes, int lane);

}  // namespace wavroute::kernels::cuda::emulator
