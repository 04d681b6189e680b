// The processes of one training, each with a share of every step's rows, and what they do together.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <exception>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "train/flat_part.h"

namespace wavroute {

// The share of process `rank` of `size` in a buffer of `length` elements: all shares but the last
// are equal, and begin at a multiple of 32 elements, so that kernels take them as whole vectors.
[[nodiscard]] Share share_of(int64_t length, int rank, int size);
// Its rows of a batch; shares differ by one row at most.
[[nodiscard]] Share rows_of(int64_t rows, int rank, int size);

// Every function is called by all processes, in the same order. They block until the others take
// part; those named start_... return at once, and the buffer is not touched before finish().
// Tensors are contiguous. Results have the same bits in every process, and in every run of as many
// processes. ProcessEnded where another process is gone.
class Processes {
 public:
  Processes() = default;
  virtual ~Processes() = default;
  Processes(const Processes&) = delete;
  Processes& operator=(const Processes&) = delete;

  [[nodiscard]] virtual int rank() const = 0;
  [[nodiscard]] virtual int size() const = 0;
  // The first one writes the run folder and speaks to the user.
  [[nodiscard]] bool is_first() const { return rank() == 0; }

  // flat [n] becomes its sum over all processes.
  virtual void start_sum(const at::Tensor& flat) = 0;
  // The own share of flat [n] becomes its sum over all processes; the rest is left undefined.
  virtual void start_sum_of_shares(const at::Tensor& flat) = 0;
  // Every share of flat [n] becomes what its own process has there.
  virtual void start_gather(const at::Tensor& flat) = 0;
  // Waits for everything that was started.
  virtual void finish() = 0;
  // `tensor` becomes the first process'.
  virtual void broadcast(const at::Tensor& tensor) = 0;
  // own [n] of the CPU -> [size, n], in the order of ranks.
  [[nodiscard]] virtual at::Tensor all_gather(const at::Tensor& own) = 0;

  // Bytes of gradients and parameters that start_... was given so far.
  [[nodiscard]] int64_t bytes() const { return bytes_; }

  // Each number becomes its sum, added in the order of ranks.
  void sum(std::span<double> numbers);
  // What every process gives, in the order of ranks.
  [[nodiscard]] std::vector<std::string> exchange(const std::string& own);

 protected:
  void count(const at::Tensor& flat);

 private:
  int64_t bytes_ = 0;
};

// A training in one process.
[[nodiscard]] Processes& single_process();

// This process ends because another one has: that one says why.
class ProcessEnded : public std::exception {
 public:
  // The exit code where the other one vanished, and nobody could say why.
  static constexpr int kVanished = 75;

  explicit ProcessEnded(int exit_code) : exit_code_(exit_code) {}
  [[nodiscard]] const char* what() const noexcept override { return "another process has ended"; }
  [[nodiscard]] int exit_code() const noexcept { return exit_code_; }

 private:
  int exit_code_;
};

// Calls `work` in every process. Where it throws in any, it ends in all: the first of those that
// failed throws its error, with its rank, and the others throw ProcessEnded with the same code.
void together(Processes& processes, const std::function<void()>& work);
// The same, and only the first process works.
void in_first(Processes& processes, const std::function<void()>& work);

}  // namespace wavroute
