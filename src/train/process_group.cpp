#include "train/process_group.h"

#include <ATen/ATen.h>

#include <deque>
#include <mutex>
#include <torch/csrc/distributed/c10d/GroupRegistry.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <utility>

#include "train/process.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using Work = c10::intrusive_ptr<c10d::Work>;

std::mutex trouble_mutex;
std::string trouble;  // read by Python once the command has returned

// torch.distributed throws for a peer that is gone, a time limit, and for mistakes of ours.
template <typename Action>
auto or_ended(const Action& action) {
  try {
    return action();
  } catch (const std::exception& error) {
    const std::string what = error.what();
    {
      const std::lock_guard lock(trouble_mutex);
      trouble = what.substr(0, what.find('\n'));
    }
    StopSignal::stay();  // the launcher asks all processes to end while this one does
    throw ProcessEnded(ProcessEnded::kVanished);
  }
}

class GroupProcesses final : public Processes {
 public:
  explicit GroupProcesses(c10::intrusive_ptr<c10d::ProcessGroup> group)
      : group_(std::move(group)) {}

  [[nodiscard]] int rank() const override { return group_->getRank(); }
  [[nodiscard]] int size() const override { return group_->getSize(); }

  void start_sum(const at::Tensor& flat) override {
    count(flat);
    std::vector<at::Tensor> tensors = {flat};
    start([&] { return group_->allreduce(tensors); });
  }

  void start_sum_of_shares(const at::Tensor& flat) override {
    count(flat);
    at::Tensor sent = padded(flat);
    const at::Tensor own = share(flat, rank());
    if (!flat.is_cpu()) {
      at::Tensor sum = at::empty({sent.numel() / size()}, flat.options());
      start([&] { return group_->reduce_scatter_single(sum, sent); },
            [own, sum] { own.copy_(sum.narrow(0, 0, own.numel())); });
      return;
    }
    // Gloo's reduce_scatter sends as much as its allreduce.
    at::Tensor received = at::empty_like(sent);
    std::vector<int64_t> equal;
    start([&] { return group_->all_to_all_single(received, sent, equal, equal); },
          [own, received, count = size()] {
            const at::Tensor parts = received.view({count, -1}).narrow(1, 0, own.numel());
            own.copy_(parts[0]);
            for (int64_t r = 1; r < count; ++r) own.add_(parts[r]);
          });
  }

  void start_gather(const at::Tensor& flat) override {
    count(flat);
    const bool is_even = flat.numel() == padded_length(flat);
    at::Tensor own = at::zeros({padded_length(flat) / size()}, flat.options());
    const at::Tensor from = share(flat, rank());
    own.narrow(0, 0, from.numel()).copy_(from);
    at::Tensor all = is_even ? flat : at::empty({padded_length(flat)}, flat.options());
    start([&] { return group_->all_gather_single(all, own); },
          [flat, all, is_even] {
            if (!is_even) flat.copy_(all.narrow(0, 0, flat.numel()));
          });
  }

  void finish() override {
    while (!pending_.empty()) {
      const Pending pending = std::move(pending_.front());
      pending_.pop_front();
      wait(pending.work);
      if (pending.then) pending.then();
    }
  }

  void broadcast(const at::Tensor& tensor) override {
    std::vector<at::Tensor> tensors = {tensor};
    wait(or_ended([&] { return group_->broadcast(tensors); }));
  }

  [[nodiscard]] at::Tensor all_gather(const at::Tensor& own) override {
    at::Tensor from = own;
    at::Tensor all = at::empty({size() * own.numel()}, own.options());
    wait(or_ended([&] { return group_->all_gather_single(all, from); }));
    return all.view({size(), own.numel()});
  }

 private:
  struct Pending {
    Work work;
    std::function<void()> then;
  };

  static void wait(const Work& work) {
    or_ended([&] { return work->wait(); });
  }

  template <typename Action>
  void start(const Action& action, std::function<void()> then = {}) {
    pending_.push_back({or_ended(action), std::move(then)});
  }

  // With room for equal shares of all processes.
  [[nodiscard]] int64_t padded_length(const at::Tensor& flat) const {
    return share_of(flat.numel(), 0, size()).count() * size();
  }
  [[nodiscard]] at::Tensor padded(const at::Tensor& flat) const {
    const int64_t length = padded_length(flat);
    if (length == flat.numel()) return flat;
    at::Tensor longer = at::zeros({length}, flat.options());
    longer.narrow(0, 0, flat.numel()).copy_(flat);
    return longer;
  }
  [[nodiscard]] at::Tensor share(const at::Tensor& flat, int rank) const {
    const Share range = share_of(flat.numel(), rank, size());
    return flat.narrow(0, range.begin, range.count());
  }

  c10::intrusive_ptr<c10d::ProcessGroup> group_;
  std::deque<Pending> pending_;
};

}  // namespace

std::unique_ptr<Processes> join_process_group(const std::string& name) {
  try {
    return std::make_unique<GroupProcesses>(c10d::resolve_process_group(name));
  } catch (const c10::Error&) {
    throw expected("the name of a process group of torch.distributed", "'" + name + "'", {},
                   "torchrun -m wavroute train ... makes the group and names it");
  }
}

std::string process_group_trouble() {
  const std::lock_guard lock(trouble_mutex);
  return trouble;
}

}  // namespace wavroute
