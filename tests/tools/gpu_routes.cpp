// Times the routed read and its backward on a GPU, and a copy beside them: one csv row each.
//
//     build/bin/gpu_routes [FILE]      rows are added to FILE, and printed
//
// A read is phase 1 of one router over n finished sources, the merge and the norm; the bytes that
// count are those of the sources, of the result, and in the backward of the sources' gradients.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/cuda/route.h"

namespace wavroute::kernels {
namespace {

void require(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "gpu_routes: CUDA: %s\n", cudaGetErrorString(error));
  std::exit(1);
}

// Zeros on the GPU.
template <typename T>
class Numbers {
 public:
  explicit Numbers(int64_t count) {
    const size_t bytes = static_cast<size_t>(count) * sizeof(T);
    require(cudaMalloc(reinterpret_cast<void**>(&at_), bytes));
    require(cudaMemset(at_, 0, bytes));
  }
  Numbers(const Numbers&) = delete;
  Numbers& operator=(const Numbers&) = delete;
  ~Numbers() { cudaFree(at_); }
  [[nodiscard]] T* at() const { return at_; }

 private:
  T* at_ = nullptr;
};

struct Times {
  double p20 = 0.0, p50 = 0.0, p80 = 0.0;  // ms
};
Times time_of(const std::function<void()>& work) {
  constexpr int kRounds = 41, kWarmup = 5;
  cudaEvent_t begin = nullptr, end = nullptr;
  require(cudaEventCreate(&begin));
  require(cudaEventCreate(&end));
  std::vector<float> times;
  for (int round = -kWarmup; round < kRounds; ++round) {
    require(cudaEventRecord(begin, nullptr));
    work();
    require(cudaEventRecord(end, nullptr));
    require(cudaEventSynchronize(end));
    float ms = 0.0F;
    require(cudaEventElapsedTime(&ms, begin, end));
    if (round >= 0) times.push_back(ms);
  }
  std::ranges::sort(times);
  const auto quantile = [&](double q) {
    return double{times[static_cast<size_t>(q * (kRounds - 1))]};
  };
  return {quantile(0.2), quantile(0.5), quantile(0.8)};
}

class Table {
 public:
  explicit Table(const char* path) : path_(path) {
    cudaDeviceProp properties = {};
    require(cudaGetDeviceProperties(&properties, 0));
    gpu_ = properties.name;
    if (path_ == nullptr || std::ifstream(path_).good()) return;
    std::ofstream(path_) << "date,gpu,measure,rows,width,sources,tokens,ms_p20,ms_p50,ms_p80,"
                            "gb_per_s,percent_of_copy\n";
  }
  // Of `bytes` read and written.
  void add(const std::string& measure, const std::string& type, int64_t d, int64_t sources,
           int64_t tokens, const Times& times, double bytes) {
    const double speed = bytes / times.p50 / 1e6;
    if (measure == "copy") copy_ = speed;
    char date[32], row[256];
    const std::time_t now = std::time(nullptr);
    std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
    std::snprintf(row, sizeof row, "%s,%s,%s,%s,%lld,%lld,%lld,%.4f,%.4f,%.4f,%.1f,%.1f\n", date,
                  gpu_.c_str(), measure.c_str(), type.c_str(), static_cast<long long>(d),
                  static_cast<long long>(sources), static_cast<long long>(tokens), times.p20,
                  times.p50, times.p80, speed, 100.0 * speed / copy_);
    std::fputs(row, stdout);
    std::fflush(stdout);
    if (path_ != nullptr) std::ofstream(path_, std::ios::app) << row;
  }

 private:
  const char* path_;
  std::string gpu_;
  double copy_ = 1.0;
};

template <typename R>
void time_reads(Table& table, int64_t d, int64_t sources, int64_t tokens) {
  const std::string type = std::is_same_v<R, float> ? "fp32" : "bf16";
  const Numbers<R> rows(sources * tokens * d), mixed(tokens * d), h(tokens * d), x(tokens * d);
  const Numbers<float> scalars(2 * sources * tokens), query(d), gain(d), bias(sources),
      logits(sources * tokens), per_token(5 * tokens), no_bias(1);
  std::vector<Grid<const R>> grids;
  std::vector<const float*> ratios, inverses;
  for (int64_t j = 0; j < sources; ++j) {
    grids.push_back({rows.at() + j * tokens * d, d});
    ratios.push_back(scalars.at() + 2 * j * tokens);
    inverses.push_back(scalars.at() + (2 * j + 1) * tokens);
  }
  float* const peak = per_token.at();
  float *const mass = peak + tokens, *const lse = mass + tokens, *const along = lse + tokens,
               *const inverse_rms = along + tokens;

  MixFinished<R, R> mix;
  mix.d = d, mix.sources = sources, mix.routers = 1;
  mix.rows = grids.data(), mix.ratio = ratios.data(), mix.inverse = inverses.data();
  mix.query = {query.at(), d}, mix.bias = {bias.at(), sources};
  mix.logits = {logits.at(), sources * tokens, tokens};
  mix.peak = {peak, tokens}, mix.mass = {mass, tokens};
  mix.mixed = {mixed.at(), tokens * d, d};
  WriteRead<R> read;
  read.d = d;
  read.query = query.at(), read.peak = peak, read.mass = mass, read.mixed = {mixed.at(), d};
  read.norm_eps = 1e-6F;
  read.lse = lse, read.gain = gain.at();
  read.h = {h.at(), d}, read.x = {x.at(), d}, read.inverse_rms = inverse_rms;
  const auto row_bytes = static_cast<double>(tokens * d) * sizeof(R);
  const double forward = static_cast<double>(sources + 1) * row_bytes;
  table.add("mix", type, d, sources, tokens, time_of([&] { cuda::mix(mix, tokens, nullptr); }),
            forward);
  const auto whole_read = [&] {
    cuda::mix(mix, tokens, nullptr);
    cuda::write_read(read, no_bias.at(), tokens, nullptr);
  };
  table.add("read", type, d, sources, tokens, time_of(whole_read), forward);

  const Numbers<float> grads(sources * tokens * d), query_grad(d), bias_grad(sources),
      scratch(cuda::mix_backward_floats(tokens, d, 1, sources)),
      read_scratch(cuda::read_backward_floats(tokens, d)), gain_grad(d);
  std::vector<Grid<float>> grad_grids;
  for (int64_t j = 0; j < sources; ++j) grad_grids.push_back({grads.at() + j * tokens * d, d});
  const auto first = std::make_unique<bool[]>(static_cast<size_t>(sources));
  MixFinishedBackward<R, R> back;
  back.d = d, back.sources = sources, back.routers = 1;
  back.rows = mix.rows, back.ratio = mix.ratio, back.inverse = mix.inverse;
  back.query = {query.at(), d}, back.bias = {bias.at(), sources};
  back.logits = {logits.at(), sources * tokens, tokens};
  back.lse = {lse, tokens}, back.along = {along, tokens};
  back.dh = {h.at(), tokens * d, d};
  back.grads = grad_grids.data(), back.first = first.get();
  back.query_grad = {query_grad.at(), d}, back.bias_grad = {bias_grad.at(), sources};
  ReadBackward<R> read_back;
  read_back.d = d;
  read_back.dx = {x.at(), d}, read_back.h = {mixed.at(), d}, read_back.inverse_rms = inverse_rms;
  read_back.gain = gain.at(), read_back.gain_grad = gain_grad.at();
  read_back.lse = lse, read_back.dh = {h.at(), d}, read_back.along = along;
  const auto both = [&] {
    whole_read();
    cuda::read_backward(read_back, no_bias.at(), tokens, read_scratch.at(), nullptr);
    cuda::mix_backward(back, tokens, scratch.at(), nullptr);
  };
  const double backward = static_cast<double>(sources) *
                              (row_bytes + 2.0 * sizeof(float) * static_cast<double>(tokens * d)) +
                          row_bytes;
  table.add("read_and_backward", type, d, sources, tokens, time_of(both), forward + backward);
}

void run(const char* path) {
  Table table(path);
  {
    constexpr int64_t kBytes = int64_t{1} << 30;
    const Numbers<char> from(kBytes), to(kBytes);
    const Times times = time_of([&] {
      require(cudaMemcpyAsync(to.at(), from.at(), kBytes, cudaMemcpyDeviceToDevice, nullptr));
    });
    table.add("copy", "bytes", 0, 0, 0, times, 2.0 * kBytes);
  }
  time_reads<Bf16>(table, 7168, 9, 8192);
  time_reads<float>(table, 7168, 9, 8192);
  for (const int64_t d : {1024, 4096}) {
    for (const int64_t sources : {9, 33}) time_reads<Bf16>(table, d, sources, 8192);
  }
}

}  // namespace
}  // namespace wavroute::kernels

int main(int argc, char** argv) {
  wavroute::kernels::run(argc > 1 ? argv[1] : nullptr);
  return 0;
}
