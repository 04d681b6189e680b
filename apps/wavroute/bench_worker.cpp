// The child of wavroute bench step: one model, stepped by its parent line by line.
#include "bench_worker.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>

#include "base/machine.h"
#include "base/output.h"
#include "base/philox.h"
#include "config/load.h"
#include "model/cost.h"
#include "model/device.h"
#include "train/session.h"
#include "train/stepper.h"
#include "wavroute/error.h"

namespace wavroute::app {
namespace {

using Json = nlohmann::ordered_json;

// A path in an error is bytes, which JSON can't hold: what is no UTF-8 is replaced. A parent that
// went away misses nothing.
void answer(const Json& object) {
  print_or_drop(stdout, object.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
}

// A model with an optimizer and one batch of random tokens.
class Worker {
 public:
  Worker(Config config, int64_t vocab_size)
      : config_(resolve_machine(std::move(config), probe_machine())),
        model_(decoder_spec(config_, vocab_size), *config_.train.precision, device_of(config_),
               static_cast<uint64_t>(config_.train.seed)),
        optimizer_(model_.parameters(), config_.optimizer),
        batch_(Batch::empty(config_.train.batch, config_.model.context)) {
    model_.use_kernels(config_.train.kernels);
    plan_.micro_batch =
        config_.train.micro_batch > 0 ? config_.train.micro_batch : config_.train.batch;
    plan_.recompute = config_.train.recompute;
    fill_batch();
    stepper_ = make_stepper(model_, optimizer_, plan_);
  }

  [[nodiscard]] Json describe() const {
    const double tokens = static_cast<double>(batch_.rows() * batch_.context());
    return {
        {"ready", true},
        {"provider", "wavroute"},
        {"scheme", model_.spec().scheme},
        {"precision", to_string(config_.train.precision)},
        {"layers", model_.spec().model.layers},
        {"width", model_.spec().model.width},
        {"batch", batch_.rows()},
        {"context", batch_.context()},
        {"parameters", model_.parameters().count()},
        {"gemm", true},
        {"flops_per_step", tokens * training_flops_per_token(model_.spec(), model_.residual())}};
  }

  Json step() {
    const auto start = std::chrono::steady_clock::now();
    // No number of steps: gates that are frozen early in training are not frozen here.
    const Pass pass{true, static_cast<uint64_t>(config_.train.seed), {steps_++, 0}};
    stepper_->start(batch_, pass, config_.optimizer.lr);
    const TrainStepResult result = stepper_->finish();
    wait_for(model_.device());  // the update is only queued on a GPU
    const std::chrono::duration<double, std::milli> ms = std::chrono::steady_clock::now() - start;
    if (!result.is_finite()) {
      throw Failure(
          expectation("a finite loss and gradient norm",
                      fmt::format("loss {} and gradient norm {}", result.loss, result.grad_norm),
                      fmt::format("at step {}", steps_)),
          "a step without its update is not timed; a lower optimizer.lr may help");
    }
    return {{"ms", ms.count()}, {"loss", result.loss}};
  }

  [[nodiscard]] Json memory() const {
    return {{"peak_rss_bytes", peak_memory_bytes(model_.device())}};
  }

  [[nodiscard]] Json gemm() const {
    const double peak = measure_product_peak(model_.precision(), model_.spec().model,
                                             plan_.micro_batch * batch_.context(), model_.device());
    return {{"gflops", peak / 1e9}};
  }

 private:
  // Random ids, drawn micro-batch by micro-batch.
  void fill_batch() {
    const Philox random(static_cast<uint64_t>(config_.train.seed), "bench");
    const auto vocabulary = static_cast<uint32_t>(model_.spec().vocab_size);
    for (int64_t begin = 0; begin < batch_.rows(); begin += plan_.micro_batch) {
      const Batch part = batch_.slice(begin, std::min(begin + plan_.micro_batch, batch_.rows()));
      const std::span<int64_t> inputs = part.input_ids(), targets = part.target_ids();
      for (size_t i = 0; i < inputs.size(); ++i) {
        const auto bits = random.bits(i, static_cast<uint64_t>(begin));
        inputs[i] = bits[0] % vocabulary;
        targets[i] = bits[1] % vocabulary;
      }
    }
  }

  Config config_;
  Decoder model_;
  AdamW optimizer_;
  Batch batch_;
  TrainStepPlan plan_;
  std::unique_ptr<Stepper> stepper_;
  int64_t steps_ = 0;
};

Json obey(Worker& worker, const std::string& line) {
  if (line == "step") return worker.step();
  if (line == "gemm") return worker.gemm();
  if (line == "memory") return worker.memory();
  throw expected("step, gemm, memory or quit", fmt::format("'{}'", line));
}

}  // namespace

int run_bench_worker(const std::string& config, const std::vector<std::string>& sets,
                     int64_t vocab_size) {
  try {
    Worker worker(load_config(config, sets, scheme_catalog(), ConfigUse::kTrain).config,
                  vocab_size);
    answer(worker.describe());
    for (std::string line; std::getline(std::cin, line) && line != "quit";) {
      answer(obey(worker, line));
    }
    return 0;
  } catch (const std::exception& error) {
    answer({{"error", error.what()}});
    throw;
  }
}

}  // namespace wavroute::app
