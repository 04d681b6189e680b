// The coefficients of a pass: what a scheme computed from the tokens, and with which every read is
// a linear function of what was written. A stream that takes them from here instead of computing
// them again runs, with its own code, on anything that was written: on unit vectors it gives the
// depth-mixing matrix.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <utility>
#include <vector>

#include "wavroute/residual.h"

namespace wavroute {

// What a coefficient differs by.
struct Grain {
  bool tokens = false;    // the tokens of the pass
  bool channels = false;  // the channels of the stream
};

class Coefficients {
 public:
  // kRecord: keeps what a pass computes. kPass: neither keeps nor gives. kHold: gives what was
  // kept, in the same order.
  enum class Phase { kRecord, kPass, kHold };

  // Before every pass: the next coefficient is the first.
  void set(Phase phase) {
    phase_ = phase;
    next_ = 0;
  }

  template <typename Compute>
  [[nodiscard]] std::vector<at::Tensor> take(Grain grain, const Compute& compute) {
    if (phase_ == Phase::kHold) return kept_.at(next_++);
    std::vector<at::Tensor> computed = compute();
    if (phase_ == Phase::kRecord) {
      kept_.push_back(computed);
      grain_.tokens |= grain.tokens;
      grain_.channels |= grain.channels;
    }
    return computed;
  }

  // Of all that was kept.
  [[nodiscard]] Grain grain() const { return grain_; }

 private:
  Phase phase_ = Phase::kRecord;
  Grain grain_;
  std::vector<std::vector<at::Tensor>> kept_;
  std::size_t next_ = 0;
};

// Every stream takes the coefficients that it computes, or that are parameters, through this.
template <typename Compute>
[[nodiscard]] std::vector<at::Tensor> coefficients_of(const StreamOptions& options, Grain grain,
                                                      const Compute& compute) {
  if (options.coefficients == nullptr) return compute();
  return options.coefficients->take(grain, compute);
}

}  // namespace wavroute
