// `bench op` times what computes the same thing, and nothing else.
#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include "opbench/measure.h"
#include "opbench/operator.h"
#include "wavroute/error.h"

namespace wavroute::opbench {
namespace {

TEST(Operators, AgreeWithTheComposedFormInEveryCase) {
  at::manual_seed(3);
  for (const Operator& op : operators()) {
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      op.show({/*tokens=*/72, /*width=*/64, type}, [&](const Case& what) {
        EXPECT_NO_THROW(check_agreement(what, type))
            << op.name << " " << what.mode << " " << what.size;
      });
    }
  }
}

TEST(Agreement, RefusesAnotherResult) {
  const at::Tensor result = at::ones({100});
  Case what;
  what.ours.run = [&]() -> Tensors { return {result}; };
  for (const double factor : {1.0 + 3e-4, 0.5, std::nan("")}) {
    what.composed.run = [&]() -> Tensors { return {result * factor}; };
    EXPECT_THROW(check_agreement(what, at::kFloat), Failure) << factor;
  }
  what.composed.run = [&]() -> Tensors { return {result * (1.0 + 1e-6)}; };
  EXPECT_NO_THROW(check_agreement(what, at::kFloat));
}

// What a run consumes is restored before each of the two.
TEST(Agreement, PreparesBeforeEachRun) {
  const at::Tensor sum = at::zeros({});
  const Form form = {[&]() -> Tensors { return {at::Tensor(sum).add_(1.0)}; },
                     [&] { at::Tensor(sum).zero_(); }};
  Case what;
  what.ours = what.composed = form;
  EXPECT_NO_THROW(check_agreement(what, at::kFloat));
}

}  // namespace
}  // namespace wavroute::opbench
