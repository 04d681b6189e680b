// The recordings of the emulator.
#include "tests/cuda/tape.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

namespace wavroute::testing {
namespace {

TEST(Tape, DoesNothingUntilItIsReplayedAndThenWithoutTheHost) {
  const at::Tensor x = at::ones({3}), y = at::zeros({3});
  int calls = 0;
  Tape tape([&] {
    ++calls;
    const at::Tensor twice = x * 2;    // memory of its own
    y.narrow(0, 1, 2).add_(twice[0]);  // through views
    at::mul_out(const_cast<at::Tensor&>(x), twice, at::full({3}, 3.0));
  });
  EXPECT_EQ(y.sum().item<double>(), 0.0);
  tape.replay();
  tape.replay();
  EXPECT_EQ(calls, 1);
  EXPECT_TRUE(at::equal(x, at::full({3}, 36.0)));
  EXPECT_TRUE(at::equal(y, at::tensor({0.0F, 14.0F, 14.0F})));
}

TEST(Tape, HasTheOperatorsOfABackward) {
  const at::Tensor x = at::ones({2}), grad = at::zeros({2});
  Tape tape([&] {
    const at::AutoGradMode with_grad(true);
    const at::Tensor leaf = x.detach().set_requires_grad(true);
    const at::Tensor found = torch::autograd::grad({(leaf * leaf * leaf).sum()}, {leaf})[0];
    const at::NoGradGuard no_grad;
    grad.copy_(found);
  });
  for (const double value : {2.0, 5.0}) {
    x.fill_(value);
    tape.replay();
    EXPECT_TRUE(at::equal(grad, at::full({2}, 3.0 * value * value)));
  }
}

// An operator that is made of others, whose backward needs what an inner one gave.
TEST(Tape, HasTheInnerOperatorsOfABackward) {
  const at::Tensor q = at::randn({1, 1, 3, 4}), grad = at::zeros_like(q);
  const auto gradient = [&q] {
    const at::AutoGradMode with_grad(true);
    const at::Tensor leaf = q.detach().set_requires_grad(true);
    const at::Tensor y = at::scaled_dot_product_attention(leaf, leaf, leaf);
    return torch::autograd::grad({y}, {leaf}, {at::ones_like(y)})[0];
  };
  Tape tape([&] {
    const at::NoGradGuard no_grad;
    grad.copy_(gradient());
  });
  q.copy_(at::randn({1, 1, 3, 4}));
  tape.replay();
  EXPECT_TRUE(at::equal(grad, gradient()));
}

TEST(Tape, RefusesWhatWaitsForTheDevice) {
  const at::Tensor x = at::ones({3});
  const std::vector<std::function<void()>> waiting = {
      [&] { static_cast<void>(x.sum().item<double>()); }, [&] { static_cast<void>(x.nonzero()); },
      [&] {
        static_cast<void>(at::tensor({1, 2}, at::kLong).to(x.device()));
      },
      [&] { static_cast<void>(x.cpu()); }};
  for (const auto& work : waiting) EXPECT_THROW(Tape tape(work), c10::Error);
  EXPECT_NO_THROW(Tape([&] { static_cast<void>(x.to(at::kDouble)); }));
}

}  // namespace
}  // namespace wavroute::testing
