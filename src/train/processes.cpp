#include "train/processes.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "wavroute/error.h"

namespace wavroute {
namespace {

constexpr int64_t kVector = 32;  // elements that a share is a multiple of

class SingleProcess final : public Processes {
 public:
  [[nodiscard]] int rank() const override { return 0; }
  [[nodiscard]] int size() const override { return 1; }
  void start_sum(const at::Tensor&) override {}
  void start_sum_of_shares(const at::Tensor&) override {}
  void start_gather(const at::Tensor&) override {}
  void finish() override {}
  void broadcast(const at::Tensor&) override {}
  [[nodiscard]] at::Tensor all_gather(const at::Tensor& own) override { return own.unsqueeze(0); }
};

// The process exit code that `error` stands for.
int exit_code_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const Error& ours) {
    return ours.exit_code();
  } catch (...) {
    return 1;
  }
}

[[noreturn]] void throw_with_rank(const std::exception_ptr& error, int rank) {
  const auto named = [&](const Error& ours) {
    return rank == 0 ? ours.what() : fmt::format("rank {}: {}", rank, ours.what());
  };
  try {
    std::rethrow_exception(error);
  } catch (const UserError& ours) {
    throw UserError(named(ours), ours.hint());
  } catch (const Failure& ours) {
    throw Failure(named(ours), ours.hint());
  }
}

}  // namespace

Share share_of(int64_t length, int rank, int size) {
  const int64_t vectors = (length + kVector - 1) / kVector;
  const int64_t each = (vectors + size - 1) / size * kVector;
  return {std::min(rank * each, length), std::min((rank + 1) * each, length)};
}

Share rows_of(int64_t rows, int rank, int size) {
  return {rows * rank / size, rows * (rank + 1) / size};
}

void Processes::sum(std::span<double> numbers) {
  if (size() == 1) return;
  const auto count = static_cast<int64_t>(numbers.size());
  const at::Tensor own = at::empty({count}, at::kDouble);
  std::ranges::copy(numbers, own.mutable_data_ptr<double>());
  const at::Tensor all = all_gather(own);  // [size, count]
  const double* values = all.const_data_ptr<double>();
  for (int64_t i = 0; i < count; ++i) {
    numbers[static_cast<size_t>(i)] = 0.0;
    for (int64_t r = 0; r < size(); ++r) numbers[static_cast<size_t>(i)] += values[r * count + i];
  }
}

std::vector<std::string> Processes::exchange(const std::string& own) {
  if (size() == 1) return {own};
  const auto length = static_cast<int64_t>(own.size());
  const at::Tensor lengths = all_gather(at::full({1}, length, at::kLong));
  const int64_t longest = std::max<int64_t>(lengths.max().item<int64_t>(), 1);
  const at::Tensor padded = at::zeros({longest}, at::kByte);
  std::memcpy(padded.mutable_data_ptr<uint8_t>(), own.data(), own.size());
  const at::Tensor all = all_gather(padded);
  std::vector<std::string> texts;
  for (int64_t r = 0; r < size(); ++r) {
    const auto* text = reinterpret_cast<const char*>(all.const_data_ptr<uint8_t>() + r * longest);
    texts.emplace_back(text, static_cast<size_t>(lengths.const_data_ptr<int64_t>()[r]));
  }
  return texts;
}

void Processes::count(const at::Tensor& flat) {
  bytes_ += flat.numel() * static_cast<int64_t>(flat.element_size());
}

Processes& single_process() {
  static SingleProcess process;
  return process;
}

void together(Processes& processes, const std::function<void()>& work) {
  if (processes.size() == 1) return work();
  std::exception_ptr error;
  try {
    work();
  } catch (const ProcessEnded&) {
    throw;
  } catch (...) {
    error = std::current_exception();
  }
  const int own = error == nullptr ? 0 : exit_code_of(error);
  const at::Tensor codes = processes.all_gather(at::full({1}, own, at::kLong));
  for (int rank = 0; rank < processes.size(); ++rank) {
    const auto code = static_cast<int>(codes.const_data_ptr<int64_t>()[rank]);
    if (code == 0) continue;
    if (rank == processes.rank()) throw_with_rank(error, rank);
    throw ProcessEnded(code);
  }
}

void in_first(Processes& processes, const std::function<void()>& work) {
  together(processes, [&] {
    if (processes.is_first()) work();
  });
}

}  // namespace wavroute
