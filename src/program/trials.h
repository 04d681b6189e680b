// What a search over layer programs tries, and what is best of it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <vector>

namespace wavroute {

// Layer numbers from 0, in the order of execution.
using Layers = std::vector<int64_t>;
// The loss of a model under a program, in nats per token.
using ProgramLoss = std::function<double(const Layers&)>;

struct Trial {
  Layers layers;
  double loss = 0.0;
};

// 0, 1, ..., layers - 1.
[[nodiscard]] Layers all_layers(int64_t layers);

// Evaluates programs, each once, as long as the budget lasts.
class Trials {
 public:
  Trials(int64_t budget, ProgramLoss loss) : budget_(budget), loss_(std::move(loss)) {}

  [[nodiscard]] int64_t budget() const { return budget_; }
  // Whether nothing is left for a program that was not evaluated yet.
  [[nodiscard]] bool is_spent() const { return std::ssize(all_) >= budget_; }
  // Its loss; evaluated at the first call, which needs what is left of the budget.
  double loss_of(const Layers& layers);
  [[nodiscard]] bool knows(const Layers& layers) const { return index_.contains(layers); }
  // In the order of their evaluation.
  [[nodiscard]] const std::vector<Trial>& all() const { return all_; }

 private:
  int64_t budget_;
  ProgramLoss loss_;
  std::map<Layers, size_t> index_;
  std::vector<Trial> all_;
};

// The programs that no shorter or equally long one beats, from the shortest on: each has a lower
// loss than all before it.
[[nodiscard]] std::vector<Trial> best_by_length(std::span<const Trial> trials);

}  // namespace wavroute
