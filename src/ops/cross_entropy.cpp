#include "ops/cross_entropy.h"

#include "ops/elementwise_arguments.h"
#include "ops/parallel.h"

namespace wavroute::ops {

double cross_entropy(Memory& memory, at::Tensor logits, const at::Tensor& targets, double weight) {
  const int64_t tokens = logits.size(0);
  check_ids(targets, logits.size(1), /*targets=*/true);
  const at::Tensor loss = memory.empty({tokens}, at::kFloat);
  with_type(logits.scalar_type(), [&]<typename C>() {
    const kernels::CrossEntropy<C> args = arguments<C>(logits, targets, weight, loss);
    const auto kernel = kernels::chosen_kernels().activation->of<C>().cross_entropy;
    parallel_for(tokens, [&](int64_t begin, int64_t end) { kernel(args, begin, end); });
  });
  double sum = 0.0;
  for (int64_t token = 0; token < tokens; ++token) sum += in<float>(loss)[token];
  return sum;
}

}  // namespace wavroute::ops
