// The kernels for GPUs, on the emulator or on a GPU (runs.h), as tables that the tests of the CPU's
// kernels take: a range of rows is a launch over these rows alone.
#include <memory>
#include <utility>

#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/route.h"
#include "kernels/cuda/stream.h"
#include "tests/kernels/cuda/runs.h"
#include "tests/kernels/kernel_test.h"

namespace wavroute::kernels {
namespace {

using cuda::emulator::Order;

template <typename T>
T* from(T* numbers, int64_t first) {
  return numbers == nullptr ? nullptr : numbers + first;
}
template <typename T>
Grid<T> from(const Grid<T>& rows, int64_t first) {
  return rows ? rows.from(first) : rows;
}

template <typename C>
PartWrite<C> from(const PartWrite<C>& write, int64_t first) {
  return {from(write.u, first), write.part, from(write.in, first), from(write.out, first)};
}
Parts from(Parts parts, int64_t first) {
  for (auto& rows : parts.rows) rows = from(rows, first);
  return parts;
}
template <typename T>
Grids<T> columns_from(const Grids<T>& numbers, int64_t first) {
  return numbers ? Grids<T>{numbers.at + first, numbers.distance, numbers.pitch} : numbers;
}
template <typename T>
Grids<T> rows_from(const Grids<T>& rows, int64_t first) {
  return {rows.at + first * rows.pitch, rows.distance, rows.pitch};
}
template <typename T>
Grid<T> columns_from(const Grid<T>& numbers, int64_t first) {
  return {numbers.at + first, numbers.pitch};
}

// The sources of phase 1 from a token on.
template <typename R>
struct SourcesFrom {
  std::vector<Grid<const R>> rows;
  std::vector<const float*> ratio, inverse;
  template <typename Problem>
  SourcesFrom(Problem& p, int64_t first) {
    for (int64_t j = 0; j < p.sources; ++j) {
      rows.push_back(from(p.rows[j], first));
      ratio.push_back(p.ratio[j] + first);
      inverse.push_back(p.inverse[j] + first);
    }
    p.rows = rows.data(), p.ratio = ratio.data(), p.inverse = inverse.data();
  }
};

// The biases of running sources, which the kernels have in memory of their own.
template <typename Args>
std::vector<float> take_biases(Args& args) {
  std::vector<float> biases;
  for (auto& source : args.sources) biases.push_back(std::exchange(source.bias, NAN));
  return biases;
}

template <Order order>
struct Emulated {
  template <typename C>
  static void write_read(const WriteRead<C>& args, int64_t begin, int64_t end) {
    WriteRead<C> a = args;
    a.write = from(a.write, begin), a.parts = from(a.parts, begin);
    const std::vector<float> bias = take_biases(a);
    for (RunningSource& source : a.sources) {
      source.dot = from(source.dot, begin), source.ratio = from(source.ratio, begin);
      source.inverse = from(source.inverse, begin);
    }
    a.peak = from(a.peak, begin), a.mass = from(a.mass, begin), a.mixed = from(a.mixed, begin);
    a.lse = from(a.lse, begin), a.inverse_rms = from(a.inverse_rms, begin);
    a.h = from(a.h, begin), a.x = from(a.x, begin);
    const cuda::Runs runs(order);
    cuda::write_read(a, bias.data(), end - begin, nullptr);
  }
  template <typename C>
  static void finish_block(const FinishBlock<C>& args, int64_t begin, int64_t end) {
    FinishBlock<C> a = args;
    a.write = from(a.write, begin), a.parts = from(a.parts, begin);
    for (int s = 0; s < kMostRunning; ++s) {
      a.rows[s] = from(a.rows[s], begin);
      a.ratio[s] = from(a.ratio[s], begin), a.inverse[s] = from(a.inverse[s], begin);
    }
    const cuda::Runs runs(order);
    cuda::finish_block(a, end - begin, nullptr);
  }
  template <typename C>
  static void read_backward(const ReadBackward<C>& args, int64_t begin, int64_t end) {
    ReadBackward<C> a = args;
    a.dx = from(a.dx, begin), a.h = from(a.h, begin), a.parts = from(a.parts, begin);
    a.inverse_rms = from(a.inverse_rms, begin), a.lse = from(a.lse, begin);
    const std::vector<float> bias = take_biases(a);
    for (RunningSourceGrad& source : a.sources) {
      source.dot = from(source.dot, begin), source.ratio = from(source.ratio, begin);
      source.inverse = from(source.inverse, begin);
    }
    for (FormGrad& form : a.forms) {
      form.grad = from(form.grad, begin), form.joined = from(form.joined, begin);
    }
    a.dh = from(a.dh, begin), a.along = from(a.along, begin), a.du = from(a.du, begin);
    const int64_t floats = cuda::read_backward_floats(end - begin, a.d);
    std::vector<float> scratch(static_cast<size_t>(floats), NAN);
    const cuda::Runs runs(order);
    cuda::read_backward(a, bias.data(), end - begin, scratch.data(), nullptr);
  }
  template <typename C>
  static void update_grad(const UpdateGrad<C>& args, int64_t begin, int64_t end) {
    UpdateGrad<C> a = args;
    for (auto& grad : a.grads) grad = from(grad, begin);
    a.du = from(a.du, begin);
    const cuda::Runs runs(order);
    cuda::update_grad(a, end - begin, nullptr);
  }
  template <typename R>
  static void source_scalars(const SourceScalars<R>& args, int64_t begin, int64_t end) {
    SourceScalars<R> s = args;
    s.row = from(s.row, begin), s.summary = from(s.summary, begin);
    s.ratio = from(s.ratio, begin), s.inverse = from(s.inverse, begin);
    const cuda::Runs runs(order);
    cuda::source_scalars(s, end - begin, nullptr);
  }
  template <typename R, typename M>
  static void mix(const MixFinished<R, M>& args, int64_t begin, int64_t end) {
    MixFinished<R, M> p = args;
    const SourcesFrom<R> sources(p, begin);
    p.logits = columns_from(p.logits, begin), p.mixed = rows_from(p.mixed, begin);
    p.peak = columns_from(p.peak, begin), p.mass = columns_from(p.mass, begin);
    const cuda::Runs runs(order);
    cuda::mix(p, end - begin, nullptr);
  }
  template <typename R, typename M>
  static void mix_backward(const MixFinishedBackward<R, M>& args, int64_t begin, int64_t end) {
    MixFinishedBackward<R, M> p = args;
    const SourcesFrom<R> sources(p, begin);
    std::vector<Grid<float>> grads;
    for (int64_t j = 0; j < p.sources; ++j) grads.push_back(from(p.grads[j], begin));
    p.grads = grads.data(), p.dh = rows_from(p.dh, begin);
    p.logits = columns_from(p.logits, begin), p.lse = columns_from(p.lse, begin);
    p.along = columns_from(p.along, begin);
    const int64_t floats = cuda::mix_backward_floats(end - begin, p.d, p.routers, p.sources);
    std::vector<float> scratch(static_cast<size_t>(floats), NAN);
    const cuda::Runs runs(order);
    cuda::mix_backward(p, end - begin, scratch.data(), nullptr);
  }
  template <typename C>
  static void add_norm(const AddNorm<C>& args, int64_t begin, int64_t end) {
    AddNorm<C> a = args;
    a.h = from(a.h, begin), a.u = from(a.u, begin), a.h_out = from(a.h_out, begin);
    a.x = from(a.x, begin), a.inverse_rms = from(a.inverse_rms, begin);
    const cuda::Runs runs(order);
    cuda::add_norm(a, end - begin, nullptr);
  }
  template <typename C>
  static void add_norm_backward(const AddNormBackward<C>& args, int64_t begin, int64_t end) {
    AddNormBackward<C> a = args;
    a.dx = from(a.dx, begin), a.h = from(a.h, begin), a.u = from(a.u, begin);
    a.dh = from(a.dh, begin), a.du = from(a.du, begin);
    a.inverse_rms = from(a.inverse_rms, begin);
    std::vector<float> scratch(static_cast<size_t>(2 * cuda::partial_sums(end - begin) * a.d), NAN);
    const cuda::Runs runs(order);
    cuda::add_norm_backward(a, end - begin, scratch.data(), nullptr);
  }
  template <typename C>
  static void swiglu(const Swiglu<C>& args, int64_t begin, int64_t end) {
    const cuda::Runs runs(order);
    cuda::swiglu<C>({args.hidden, from(args.gate_up, begin), from(args.a, begin)}, end - begin,
                    nullptr);
  }
  template <typename C>
  static void swiglu_backward(const SwigluBackward<C>& args, int64_t begin, int64_t end) {
    const cuda::Runs runs(order);
    cuda::swiglu_backward<C>({args.hidden, from(args.gate_up, begin), from(args.da, begin)},
                             end - begin, nullptr);
  }
  template <typename C>
  static void cross_entropy(const CrossEntropy<C>& args, int64_t begin, int64_t end) {
    CrossEntropy<C> a = args;
    a.logits = from(a.logits, begin), a.targets = from(a.targets, begin);
    a.loss = from(a.loss, begin);
    const cuda::Runs runs(order);
    cuda::cross_entropy(a, end - begin, nullptr);
  }
  static void adamw(const AdamwStep& args, int64_t begin, int64_t end) {
    AdamwStep s = args;
    s.value = from(s.value, begin), s.grad = from(s.grad, begin), s.copy = from(s.copy, begin);
    s.first = from(s.first, begin), s.second = from(s.second, begin);
    const auto scalars = std::make_unique<cuda::AdamwScalars>(
        cuda::AdamwScalars{s.lr, s.correction1, s.correction2, s.grad_scale, 1});
    s.lr = s.correction1 = s.correction2 = s.grad_scale = NAN;  // what the kernel must not read
    const cuda::Runs runs(order);
    cuda::adamw(s, scalars.get(), end - begin, nullptr);
  }
  static double sum_of_squares(const float* x, int64_t begin, int64_t end) {
    std::vector<double> scratch(static_cast<size_t>(cuda::square_parts(end - begin)), NAN);
    const auto sum = std::make_unique<double>(NAN);
    {
      const cuda::Runs runs(order);
      cuda::sum_of_squares(x + begin, end - begin, scratch.data(), sum.get(), nullptr);
    }
    return *sum;
  }
  static void add_bf16(const Bf16* numbers, float* to, int64_t begin, int64_t end) {
    const cuda::Runs runs(order);
    cuda::add_bf16(numbers + begin, to + begin, end - begin, nullptr);
  }

  template <typename C>
  static constexpr StreamKernels<C> stream_table = {add_norm<C>, add_norm_backward<C>};
  template <typename C>
  static constexpr ActivationKernels<C> activation_table = {swiglu<C>, swiglu_backward<C>,
                                                            cross_entropy<C>};
  template <typename C>
  static constexpr RunningKernels<C> running_table = {write_read<C>, finish_block<C>,
                                                      read_backward<C>, update_grad<C>};
  template <typename R>
  static constexpr FinishedKernels<R> finished_table = {
      source_scalars<R>,
      {{mix<R, float>, mix_backward<R, float>}, {mix<R, Bf16>, mix_backward<R, Bf16>}}};
  static constexpr ByType<RunningKernels> running = {running_table<float>, running_table<Bf16>};
  static constexpr ByType<FinishedKernels> finished = {finished_table<float>, finished_table<Bf16>};
  static constexpr ByType<StreamKernels> stream = {stream_table<float>, stream_table<Bf16>};
  static constexpr ByType<ActivationKernels> activation = {activation_table<float>,
                                                           activation_table<Bf16>};
  static constexpr FlatKernels flat = {adamw, sum_of_squares, add_bf16};

  static TestedKernels table(const std::string& name) {
    TestedKernels kernels;
    kernels.stream = &stream;
    kernels.running = &running;
    kernels.finished = &finished;
    kernels.activation = &activation;
    kernels.flat = &flat;
    kernels.name = name;
    kernels.adds_rows_in_order = false;
    return kernels;
  }
};

}  // namespace

std::vector<TestedKernels> tested_kernels() {
#if defined(WAVROUTE_ON_GPU)
  return {Emulated<Order::kForwards>::table("gpu")};
#endif
  return {Emulated<Order::kBackwards>::table("backwards"),
          Emulated<Order::kShuffled>::table("shuffled")};
}

}  // namespace wavroute::kernels
