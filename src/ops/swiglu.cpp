#include "ops/swiglu.h"

#include "ops/parallel.h"
#include "ops/typed.h"

namespace wavroute::ops {

at::Tensor swiglu(Memory& memory, const at::Tensor& gate_up) {
  const int64_t tokens = gate_up.size(0), hidden = gate_up.size(1) / 2;
  at::Tensor a = memory.empty({tokens, hidden}, gate_up.scalar_type());
  with_type(gate_up.scalar_type(), [&]<typename C>() {
    const kernels::Swiglu<C> args{hidden, rows_in<C>(gate_up), rows_out<C>(a)};
    const auto kernel = kernels::chosen_kernels().activation->of<C>().swiglu;
    parallel_for(tokens, [&](int64_t begin, int64_t end) { kernel(args, begin, end); });
  });
  return a;
}

void swiglu_backward(at::Tensor gate_up, at::Tensor da) {
  with_type(gate_up.scalar_type(), [&]<typename C>() {
    const kernels::SwigluBackward<C> args{da.size(1), rows_out<C>(gate_up), rows_out<C>(da)};
    const auto kernel = kernels::chosen_kernels().activation->of<C>().swiglu_backward;
    parallel_for(da.size(0), [&](int64_t begin, int64_t end) { kernel(args, begin, end); });
  });
}

}  // namespace wavroute::ops
