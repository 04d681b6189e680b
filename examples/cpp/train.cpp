// Trains a model on the bytes of a text with an optimizer of this file's own, Lion
// (arXiv 2302.06675): train TEXT OUT [SCHEME] [STEPS]
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <wavroute/error.h>
#include <wavroute/training.h>

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

namespace {

constexpr int64_t kRows = 8, kLength = 64;  // of a batch
constexpr double kRate = 1e-3, kDecay = 0.1, kFast = 0.9, kSlow = 0.99;

// The update is the sign of a mean of gradients; each decay group of the parameters is one buffer.
class Lion {
 public:
  explicit Lion(wavroute::ParameterTable& table) : table_(table) {
    for (const auto& group : table.groups()) means_.push_back(at::zeros_like(group.grad));
  }

  void update() {
    const at::NoGradGuard no_grad;
    for (size_t i = 0; i < means_.size(); ++i) {
      auto& group = table_.groups()[i];
      if (group.decay == wavroute::Decay::kYes) group.value.mul_(1.0 - kRate * kDecay);
      group.value.sub_(at::sign(kFast * means_[i] + (1.0 - kFast) * group.grad), kRate);
      means_[i].lerp_(group.grad, 1.0 - kSlow);
    }
    table_.refresh_compute();
    table_.zero_grad();
  }

 private:
  wavroute::ParameterTable& table_;
  std::vector<at::Tensor> means_;
};

void train(const at::Tensor& text, const std::string& out, const std::string& scheme, int steps) {
  wavroute::DecoderSpec spec;
  spec.model = {
      .layers = 4, .width = 64, .heads = 4, .kv_heads = 4, .hidden = 128, .context = kLength};
  spec.scheme = scheme;
  wavroute::Decoder model(spec, wavroute::Precision::kFp32, at::kCPU, /*seed=*/1);
  Lion optimizer(model.parameters());
  std::mt19937_64 draws(1);
  for (int step = 0; step < steps; ++step) {
    std::vector<at::Tensor> rows;
    for (int64_t row = 0; row < kRows; ++row) {
      const auto from = static_cast<int64_t>(draws() % (text.size(0) - kLength));
      rows.push_back(text.slice(0, from, from + kLength + 1));
    }
    const at::Tensor batch = at::stack(rows);  // [B, T + 1]
    wavroute::GradientOptions options;
    options.progress = {.step = step, .steps = steps};
    const wavroute::BatchLoss loss =
        wavroute::add_gradients(model, batch.slice(1, 0, kLength).contiguous(),
                                batch.slice(1, 1, kLength + 1).contiguous(), options);
    optimizer.update();
    if (step % 10 == 0 || step + 1 == steps) std::cout << step + 1 << " " << loss.loss << std::endl;
  }
  wavroute::save_model(model, *wavroute::make_bytes_tokenizer(), out,
                       {.step = steps, .steps = steps});
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: train TEXT OUT [SCHEME] [STEPS]\n";
    return 2;
  }
  std::ifstream file(argv[1], std::ios::binary);
  const std::vector<unsigned char> bytes{std::istreambuf_iterator<char>(file), {}};
  if (static_cast<int64_t>(bytes.size()) <= kLength) {
    std::cerr << "train: expected a text of more than " << kLength << " bytes in " << argv[1]
              << "\n";
    return 2;
  }
  try {
    train(at::tensor(bytes, at::kLong), argv[2], argc > 3 ? argv[3] : "wav",
          argc > 4 ? std::atoi(argv[4]) : 100);
  } catch (const wavroute::Error& error) {
    std::cerr << "train: " << error.what() << "\nhint: " << error.hint() << "\n";
    return error.exit_code();
  }
}
