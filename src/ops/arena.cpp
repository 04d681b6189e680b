#include "ops/arena.h"

#include <ATen/ops/as_strided.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <sys/mman.h>

#include <atomic>
#include <map>
#include <mutex>
#include <new>
#include <numeric>
#include <utility>
#include <vector>

namespace wavroute::ops {
namespace {

constexpr size_t kAlignment = 64;              // bytes: a cache line, and the widest vector
constexpr size_t kHugePage = size_t{2} << 20;  // size of the system's huge pages
constexpr size_t kSlab = size_t{32} << 20;     // taken from the system at a time
constexpr size_t kPage = 4096;                 // rows at this distance share cache sets
constexpr size_t kGap = 5 * kAlignment;        // keeps them apart

size_t rounded(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

}  // namespace

class Arena::Pool {
 public:
  Pool() = default;
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool() {
    for (const Slab& slab : slabs_) munmap(slab.start, slab.size);
  }

  struct Block {
    void* start;
    int64_t pass;  // in which it was last in use
  };

  Block take(size_t bytes) {
    const std::lock_guard lock(mutex_);
    std::vector<Block>& free = free_[bytes];
    Block block = {nullptr, -1};
    if (free.empty()) {
      block.start = make(bytes);
    } else {
      block = free.back();  // the last one given back: the likeliest to be in the cache
      free.pop_back();
    }
    if (block.pass != pass_) needed_ += static_cast<int64_t>(bytes);
    block.pass = pass_;
    return block;
  }

  void give_back(Block block, size_t bytes) {
    const std::lock_guard lock(mutex_);
    free_[bytes].push_back(block);
  }

  // False if too much of the held memory is useless to a pass.
  bool begin_pass() {
    const std::lock_guard lock(mutex_);
    most_needed_ = std::max(most_needed_, std::exchange(needed_, 0));
    ++pass_;
    return taken_ <= 3 * most_needed_ + static_cast<int64_t>(kSlab);
  }

  int64_t bytes() const {
    const std::lock_guard lock(mutex_);
    return taken_;
  }
  int64_t misses() const {
    const std::lock_guard lock(mutex_);
    return misses_;
  }

 private:
  struct Slab {
    void* start;
    size_t size;
  };

  void* make(size_t bytes) {
    ++misses_;
    if (left_ < bytes) {
      const size_t size = rounded(std::max(bytes, kSlab), kHugePage);
      void* start = mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (start == MAP_FAILED) throw std::bad_alloc();
      slabs_.push_back({start, size + kHugePage});
      const auto address = reinterpret_cast<size_t>(start);
      next_ = static_cast<char*>(start) + (rounded(address, kHugePage) - address);
      left_ = size;
      // Fewer TLB entries; ignored by systems without huge pages.
      (void)madvise(next_, size, MADV_HUGEPAGE);
    }
    void* block = next_;
    next_ += bytes;
    left_ -= bytes;
    taken_ += static_cast<int64_t>(bytes);
    return block;
  }

  mutable std::mutex mutex_;
  std::map<size_t, std::vector<Block>> free_;  // by size
  std::vector<Slab> slabs_;
  char* next_ = nullptr;  // the unused rest of the newest slab
  size_t left_ = 0;
  int64_t taken_ = 0, misses_ = 0;
  int64_t pass_ = 0;
  int64_t needed_ = 0,
          most_needed_ = 0;  // bytes of distinct blocks in use: in this pass, in any pass
};

Arena::Arena() : pool_(std::make_shared<Pool>()) {}

// Passes of several threads may begin at once: pool_ is read and exchanged atomically.
void Arena::begin_pass() {
  std::shared_ptr<Pool> pool = std::atomic_load(&pool_);
  if (pool->begin_pass()) return;
  // The old one goes with its last tensor. Another thread may have come before.
  if (std::atomic_compare_exchange_strong(&pool_, &pool, std::make_shared<Pool>())) {
    std::atomic_ref(earlier_misses_) += pool->misses();
  }
}

at::Tensor Arena::empty(at::IntArrayRef sizes, at::ScalarType type) {
  const int64_t count =
      std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<>());
  size_t bytes =
      rounded(std::max<size_t>(static_cast<size_t>(count) * c10::elementSize(type), 1), kAlignment);
  if (bytes >= kPage) bytes += kGap;
  const std::shared_ptr<Pool> pool = std::atomic_load(&pool_);
  const Pool::Block block = pool->take(bytes);
  return at::from_blob(
      block.start, sizes, [pool, block, bytes](void*) { pool->give_back(block, bytes); },
      at::TensorOptions().dtype(type));
}

at::Tensor Arena::empty_apart(int64_t count, at::IntArrayRef sizes, at::ScalarType type) {
  const int64_t own = std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<>());
  const auto size_of = static_cast<int64_t>(c10::elementSize(type));
  const int64_t unit = static_cast<int64_t>(kAlignment) / size_of;
  const int64_t pitch = (own + unit - 1) / unit * unit + static_cast<int64_t>(kGap) / size_of;
  std::vector<int64_t> shape = {count}, strides = {pitch};
  int64_t left = own;
  for (const int64_t size : sizes) {
    left = size > 0 ? left / size : 0;
    shape.push_back(size);
    strides.push_back(left);
  }
  return empty({count, pitch}, type).as_strided(shape, strides);
}

at::Tensor empty_huge(at::IntArrayRef sizes, at::ScalarType type) {
  at::Tensor tensor = at::empty(sizes, at::TensorOptions().dtype(type));
  char* const begin = static_cast<char*>(tensor.mutable_data_ptr());
  const auto address = reinterpret_cast<size_t>(begin);
  const size_t first = rounded(address, kHugePage);
  const size_t last = (address + tensor.nbytes()) / kHugePage * kHugePage;
  // Ignored by systems without huge pages.
  if (first < last) (void)madvise(begin + (first - address), last - first, MADV_HUGEPAGE);
  return tensor;
}

at::Tensor SystemMemory::empty(at::IntArrayRef sizes, at::ScalarType type) {
  return at::empty(sizes, at::TensorOptions().dtype(type).device(device_));
}

at::Tensor SystemMemory::empty_apart(int64_t count, at::IntArrayRef sizes, at::ScalarType type) {
  std::vector<int64_t> shape = {count};
  shape.insert(shape.end(), sizes.begin(), sizes.end());
  return empty(shape, type);
}

int64_t Arena::bytes() const { return std::atomic_load(&pool_)->bytes(); }
int64_t Arena::misses() const { return earlier_misses_ + std::atomic_load(&pool_)->misses(); }

}  // namespace wavroute::ops
