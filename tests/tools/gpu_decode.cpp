// Times decoding of one sequence, token by token, by recordings (CUDA graphs) and as passes that
// run as they are: one csv row each. On the CPU, where nothing is recorded, only the second.
//
//     build/bin/gpu_decode [FILE [LAYERS WIDTH...]]      rows are added to FILE, and printed
//
// Weights are random. A token is the best one of the host's copy of the logits, as in `wavroute
// generate --temperature 0`; the prompt and the first tokens are not timed.
#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <fstream>
#include <string>
#include <vector>

#include "base/machine.h"
#include "model/recorded_tokens.h"
#include "ops/backend.h"
#include "wavroute/decoder.h"

namespace wavroute {
namespace {

constexpr int64_t kPrompt = 16, kUntimed = 8, kTokens = 256, kVocabulary = 32768;
constexpr int kRounds = 7;

// One sequence that goes on and on.
class Sequence {
 public:
  Sequence(const Decoder& model, bool records)
      : model_(model), state_(model.inference_state(1, kPrompt + kUntimed + kTokens)) {
    state_.records = records;
    take(at::arange(kPrompt).view({1, kPrompt}));
    for (int64_t n = 0; n < kUntimed; ++n) take(last_);
  }
  // Tokens per second of as many as there is room for.
  double run() {
    const auto start = std::chrono::steady_clock::now();
    for (int64_t n = 0; n < kTokens; ++n) take(last_);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    return static_cast<double>(kTokens) / taken.count();
  }
  [[nodiscard]] bool is_recorded() const {
    return state_.tokens != nullptr && state_.tokens->is_recorded();
  }
  [[nodiscard]] const std::string& trouble() const { return state_.trouble; }

 private:
  void take(const at::Tensor& ids) {
    ForwardOptions options;
    options.state = &state_;
    options.last_only = true;
    last_ = model_.forward(ids, options).logits.cpu().flatten().argmax().view({1, 1});
  }

  const Decoder& model_;
  InferenceState state_;
  at::Tensor last_;
};

void add(const char* path, const std::string& row) {
  std::fputs(row.c_str(), stdout);
  std::fflush(stdout);
  if (path != nullptr) std::ofstream(path, std::ios::app) << row;
}

std::string now() {
  std::array<char, 32> text = {};
  const std::time_t seconds = std::time(nullptr);
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&seconds));
  return text.data();
}

void time_model(const char* path, const std::string& scheme, int64_t layers, int64_t width,
                at::Device device) {
  DecoderSpec spec;
  spec.model = {.layers = layers,
                .width = width,
                .heads = width / 64,
                .kv_heads = width / 64,
                .hidden = 4 * width,
                .context = kPrompt + kUntimed + kTokens};
  spec.vocab_size = kVocabulary;
  spec.scheme = scheme;
  const Decoder model(spec, Precision::kBf16, device, 1);
  std::array<std::vector<double>, 2> rates;  // as they are, recorded
  for (int round = 0; round < kRounds; ++round) {
    for (const bool records : {round % 2 == 0, round % 2 != 0}) {
      Sequence sequence(model, records);
      if (sequence.is_recorded() != records) {
        if (!sequence.trouble().empty()) std::fprintf(stderr, "%s\n", sequence.trouble().c_str());
        continue;
      }
      rates[records ? 1 : 0].push_back(sequence.run());
    }
  }
  const Machine probed = probe_machine();
  const std::string machine = device.is_cuda() ? probed.gpus.at(0) : probed.cpu_model;
  for (size_t kind = 0; kind < rates.size(); ++kind) {
    std::vector<double>& found = rates[kind];
    if (found.empty()) continue;
    std::ranges::sort(found);
    std::array<char, 256> row = {};
    std::snprintf(row.data(), row.size(), "%s,%s,%s,%s,bf16,%lld,%lld,%lld,%.1f,%.1f,%.1f\n",
                  now().c_str(), machine.c_str(), scheme.c_str(),
                  kind == 1 ? "recorded" : "as_it_is", static_cast<long long>(layers),
                  static_cast<long long>(width), static_cast<long long>(kTokens), found.front(),
                  found[found.size() / 2], found.back());
    add(path, row.data());
  }
}

int run(const std::vector<std::string>& arguments) {
  const char* const path = arguments.empty() ? nullptr : arguments[0].c_str();
  if (path != nullptr && !std::ifstream(path).good()) {
    std::ofstream(path) << "date,machine,scheme,passes,precision,layers,width,tokens,"
                           "tokens_per_s_least,tokens_per_s_p50,tokens_per_s_most\n";
  }
  const int64_t layers = arguments.size() > 1 ? std::stoll(arguments[1]) : 48;
  std::vector<int64_t> widths;
  for (size_t i = 2; i < arguments.size(); ++i) widths.push_back(std::stoll(arguments[i]));
  if (widths.empty()) widths = {256, 512};
  const at::Device device = at::hasCUDA() ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
  for (const int64_t width : widths) {
    for (const char* scheme : {"prenorm", "wav"}) time_model(path, scheme, layers, width, device);
  }
  return 0;
}

}  // namespace
}  // namespace wavroute

int main(int argc, char** argv) {
  try {
    return wavroute::run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "gpu_decode: %s\n", error.what());
    return 1;
  }
}
