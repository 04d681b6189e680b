// The operators that `wavroute bench op` times: ours and their composed form of stock libtorch
// operators.
//
// Each case gives the results of both forms, and is refused where they disagree: what computes
// something else is not worth a time.
//
// An operator is one entry of the list in operators.cpp: a name and a function that visits its
// cases. Table, csv, json and the filter of the command line follow from the list.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <span>
#include <string>
#include <vector>

namespace wavroute::opbench {

inline constexpr double kNormEps = 1e-6;
inline constexpr double kMatchingEps = 1e-12;

struct Problem {
  int64_t tokens = 0, width = 0;     // width: a multiple of 64
  at::ScalarType type = at::kFloat;  // the compute type: float or bfloat16
};

using Tensors = std::vector<at::Tensor>;

// One of the two forms of a case.
struct Form {
  std::function<Tensors()> run;        // what is timed; the results that both forms have
  std::function<void()> prepare = {};  // before every run, not timed: restores what a run consumes
};

struct Case {
  std::string mode;  // "forward", "backward", "both": the result and its gradient in one call
  std::string size;
  Form ours, composed;
  // The least traffic, every input read once and every output written once; numbers per token or
  // per column only where they are inputs or outputs.
  double bytes = 0;
  double flops = 0;    // of an operator that is bound by arithmetic; 0: bound by memory
  bool reads = false;  // hardly writes: the peak is that of reading
};

// Cases live as long as the call: an operator's tensors are locals of its function.
using Visit = std::function<void(const Case&)>;

struct Operator {
  std::string name;
  std::string what;  // one line
  void (*show)(const Problem& problem,
               const Visit& visit);  // no case if it doesn't support the type
};

[[nodiscard]] std::span<const Operator> operators();

// Those named, all for no names, in the order of the list. Throws UserError with the nearest name.
[[nodiscard]] std::vector<const Operator*> find_operators(std::span<const std::string> names);

// ---- for the operators' files ------------------------------------------------------------------

// Normal numbers.
[[nodiscard]] at::Tensor values(at::IntArrayRef sizes, at::ScalarType type = at::kFloat);
// A graph leaf that shares memory with `tensor`.
[[nodiscard]] at::Tensor leaf(const at::Tensor& tensor);
// Gradients of `outputs` along `directions`; the graph stays for the next run.
[[nodiscard]] Tensors gradients(const Tensors& outputs, const Tensors& inputs,
                                const Tensors& directions);
[[nodiscard]] double bytes_of(const Tensors& tensors);
[[nodiscard]] std::string rows_by_columns(int64_t rows, int64_t columns);  // "1024 x 256"

void show_norm(const Problem& problem, const Visit& visit);
void show_swiglu(const Problem& problem, const Visit& visit);
void show_attention(const Problem& problem, const Visit& visit);
void show_few_products(const Problem& problem, const Visit& visit);
void show_q8_products(const Problem& problem, const Visit& visit);
void show_cached_attention(const Problem& problem, const Visit& visit);
void show_cross_entropy(const Problem& problem, const Visit& visit);
void show_adamw(const Problem& problem, const Visit& visit);
void show_sum_of_squares(const Problem& problem, const Visit& visit);
void show_route_mix(const Problem& problem, const Visit& visit);
void show_route_mix_each(const Problem& problem, const Visit& visit);
void show_route_mix_backward(const Problem& problem, const Visit& visit);
void show_route_write_read(const Problem& problem, const Visit& visit);
void show_route_read_backward(const Problem& problem, const Visit& visit);
void show_route_block(const Problem& problem, const Visit& visit);

}  // namespace wavroute::opbench
