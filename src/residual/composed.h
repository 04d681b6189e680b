// Streams whose state is small and immutable: additive schemes, ACT, parallel streams.
#pragma once

#include <vector>

#include "wavroute/residual.h"

namespace wavroute {

// A stream written as one differentiable function of (state, update). The backward twins run
// autograd over that function again, from the recorded inputs.
//
// state[0] is what the next sublayer reads, unless `enter` makes another state for the read.
// Entries that are not floating point, and those that can't require a gradient, carry none.
class ComposedStream : public Stream {
 public:
  using State = std::vector<at::Tensor>;

  using Stream::Stream;

  void begin(const at::Tensor& embedding) override;
  [[nodiscard]] at::Tensor read(const Site& site) override;
  void write(const Site& site, const at::Tensor& update) override;
  [[nodiscard]] at::Tensor read_out() override;

  void read_out_backward(const at::Tensor& grad, double auxiliary_grad) override;
  [[nodiscard]] at::Tensor write_backward(const Site& site) override;
  void read_backward(const Site& site, const at::Tensor& grad) override;
  [[nodiscard]] at::Tensor begin_backward() override;

  [[nodiscard]] StreamSnapshot snapshot() override { return state_; }
  void restore(const StreamSnapshot& snapshot) override;

 protected:
  // The state before the first sublayer.
  [[nodiscard]] virtual State start(const at::Tensor& embedding) const { return {embedding}; }
  // For a scheme whose read depends on the site: the state that a read at `site` makes, [0] of it
  // being what the sublayer reads; the write at the same site starts from it. Differentiable and
  // without side effects, like `next`. Empty: a read leaves the state as it is.
  [[nodiscard]] virtual State enter(const Site&, const State&) const { return {}; }
  // The state after writing `update` at `site`. Differentiable and without side effects on this
  // object (it runs again in the backward); `live` is false in that second run.
  [[nodiscard]] virtual State next(const Site& site, const State& state, const at::Tensor& update,
                                   bool live) const = 0;
  [[nodiscard]] virtual at::Tensor output(const State& state) const { return state[0]; }
  // Undefined: none.
  [[nodiscard]] virtual at::Tensor auxiliary(const State&) const { return {}; }

  [[nodiscard]] const StreamOptions& options() const { return options_; }

  State state_;
  State grad_;  // of the state, in the backward

 private:
  struct Record {
    State state;  // before the write
    at::Tensor update;
  };

  std::vector<Record> records_;
  std::vector<State> entered_;  // before the reads of a scheme that has an `enter`
  std::vector<int64_t> shape_;  // of the embedding
};

}  // namespace wavroute
