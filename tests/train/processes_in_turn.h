// Several processes of a training as threads of this one, of which one runs at a time.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "train/processes.h"

namespace wavroute::testing {

// Where they meet. A thread holds the turn from one meeting to the next: pools of threads, which
// take one loop at a time, are never shared.
class Meeting {
 public:
  using Work = std::function<void(const std::vector<at::Tensor>&)>;

  explicit Meeting(int size) : given_(static_cast<size_t>(size)) {}

  std::mutex turn;

  // Waits for all; the last to come does the work on what all gave, in the order of ranks.
  void meet(std::unique_lock<std::mutex>& lock, int rank, const at::Tensor& given,
            const Work& work) {
    given_[static_cast<size_t>(rank)] = given;
    if (++arrived_ == given_.size()) {
      work(given_);
      arrived_ = 0;
      ++round_;
      all_.notify_all();
    } else {
      all_.wait(lock, [&, round = round_] { return round_ != round || is_broken_; });
    }
    if (is_broken_) throw ProcessEnded(ProcessEnded::kVanished);
  }
  void leave_broken() {
    is_broken_ = true;
    all_.notify_all();
  }
  [[nodiscard]] int size() const { return static_cast<int>(given_.size()); }

  at::Tensor gathered;

 private:
  std::condition_variable all_;
  std::vector<at::Tensor> given_;
  size_t arrived_ = 0;
  int64_t round_ = 0;
  bool is_broken_ = false;
};

class ProcessInTurn final : public Processes {
 public:
  ProcessInTurn(Meeting& meeting, int rank) : meeting_(meeting), rank_(rank), lock_(meeting.turn) {}

  [[nodiscard]] int rank() const override { return rank_; }
  [[nodiscard]] int size() const override { return meeting_.size(); }

  void start_sum(const at::Tensor& flat) override {
    count(flat);
    meet(flat, [](const std::vector<at::Tensor>& all) {
      at::Tensor sum = all[0].clone();
      for (size_t r = 1; r < all.size(); ++r) sum.add_(all[r]);
      for (const at::Tensor& each : all) each.copy_(sum);
    });
  }
  // The rest of each buffer becomes NaN: nobody may rely on it.
  void start_sum_of_shares(const at::Tensor& flat) override {
    count(flat);
    meet(flat, [](const std::vector<at::Tensor>& all) {
      at::Tensor sum = all[0].clone();
      for (size_t r = 1; r < all.size(); ++r) sum.add_(all[r]);
      for (size_t r = 0; r < all.size(); ++r) {
        const Share own = share_of(sum.numel(), static_cast<int>(r), static_cast<int>(all.size()));
        all[r].fill_(std::numeric_limits<double>::quiet_NaN());
        all[r].narrow(0, own.begin, own.count()).copy_(sum.narrow(0, own.begin, own.count()));
      }
    });
  }
  void start_gather(const at::Tensor& flat) override {
    count(flat);
    meet(flat, [](const std::vector<at::Tensor>& all) {
      at::Tensor whole = all[0].clone();
      for (size_t r = 0; r < all.size(); ++r) {
        const Share own =
            share_of(whole.numel(), static_cast<int>(r), static_cast<int>(all.size()));
        whole.narrow(0, own.begin, own.count()).copy_(all[r].narrow(0, own.begin, own.count()));
      }
      for (const at::Tensor& each : all) each.copy_(whole);
    });
  }
  void finish() override {}
  void broadcast(const at::Tensor& tensor) override {
    meet(tensor, [](const std::vector<at::Tensor>& all) {
      for (size_t r = 1; r < all.size(); ++r) all[r].copy_(all[0]);
    });
  }
  [[nodiscard]] at::Tensor all_gather(const at::Tensor& own) override {
    meet(own, [this](const std::vector<at::Tensor>& all) { meeting_.gathered = at::stack(all); });
    return meeting_.gathered.clone();
  }

 private:
  void meet(const at::Tensor& given, const Meeting::Work& work) {
    const at::NoGradGuard no_grad;
    meeting_.meet(lock_, rank_, given, work);
  }

  Meeting& meeting_;
  int rank_;
  std::unique_lock<std::mutex> lock_;
};

// Calls body(processes) in `size` threads; throws the error of the first that failed by itself.
inline void run_processes(int size, const std::function<void(Processes&)>& body) {
  Meeting meeting(size);
  std::vector<std::exception_ptr> errors(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      ProcessInTurn process(meeting, rank);
      try {
        body(process);
      } catch (...) {
        errors[static_cast<size_t>(rank)] = std::current_exception();
        meeting.leave_broken();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::exception_ptr first;
  for (const std::exception_ptr& error : errors) {
    if (error == nullptr) continue;
    try {
      std::rethrow_exception(error);
    } catch (const ProcessEnded&) {
      if (first == nullptr) first = error;
    } catch (...) {
      std::rethrow_exception(error);
    }
  }
  if (first != nullptr) std::rethrow_exception(first);
}

}  // namespace wavroute::testing
