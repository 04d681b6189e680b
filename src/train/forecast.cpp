#include "train/forecast.h"

#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <fmt/format.h>

#include <algorithm>

#include "base/numbers.h"
#include "train/backend_words.h"
#include "train/evaluation.h"
#include "train/sample.h"

namespace wavroute {
namespace {

// The share of the free memory that a plan may use; the rest is for what a plan can't know.
constexpr double kUsableShare = 0.9;

// Bytes of a GPU's memory that libraries take besides libtorch's tensors.
constexpr double kGpuProcess = 400e6;

// A training step reaches about this share of a matrix product's speed.
constexpr double kExpectedShareOfPeak = 0.35;

// What a plan may take of the free memory of the model's device.
double available_on(at::Device device, const Machine& machine) {
  if (device.is_cpu()) return kUsableShare * static_cast<double>(machine.memory_available);
  at::globalContext().lazyInitDevice(device.type());
  const auto [free, total] = at::accelerator::getMemoryInfo(device.index());
  return kUsableShare * static_cast<double>(free);
}

double tokens_per_step(const Config& config) {
  return static_cast<double>(config.train.batch * config.model.context);
}

}  // namespace

DecoderSpec decoder_spec(const Config& config, int64_t vocab_size) {
  DecoderSpec spec;
  spec.model = config.model;
  spec.vocab_size = vocab_size;
  spec.scheme = config.residual.scheme;
  spec.options = config.residual.options;
  return spec;
}

at::Device device_of(const Config& config) {
  return config.train.device == DeviceKind::kCuda ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
}

uint64_t usable_memory(const Config& config, const Machine& machine) {
  return static_cast<uint64_t>(available_on(device_of(config), machine));
}

TrainingShape training_shape(const Decoder& model, const Config& config, int64_t valid_tokens) {
  TrainingShape shape;
  shape.precision = model.precision();
  shape.recompute = config.train.recompute;
  shape.backend = model.backend().kind();
  if (!model.device().is_cpu()) shape.process = kGpuProcess;
  const int64_t context = config.model.context;
  const int64_t scored = std::min(config.data.eval_tokens, valid_tokens - 1);
  shape.eval_rows = std::min(EvaluationOptions().rows, 1 + (scored - 1) / context);
  if (config.sample.tokens > 0) {
    // A token has one byte at least.
    const auto prompt = static_cast<int64_t>(config.sample.prompt.size());
    shape.sample_tokens = (prompt > 0 ? prompt : kPromptTokens) + config.sample.tokens;
  }
  return shape;
}

Forecast forecast(const Decoder& model, const Config& config, const Machine& machine,
                  int64_t valid_tokens) {
  const TrainConfig& train = config.train;
  const int64_t count = model.parameters().count();
  TrainingShape shape = training_shape(model, config, valid_tokens);

  Forecast result;
  result.backend = shape.backend;
  result.backend_words = backend_words(model.backend(), model.device(), model.precision());
  result.parameters = count;
  result.flops_per_token = training_flops_per_token(model.spec(), model.residual());
  result.available = available_on(model.device(), machine);
  result.largest_micro_batch = largest_micro_batch(model.spec(), model.residual(), count, shape,
                                                   train.batch, result.available);
  result.micro_batch =
      train.micro_batch > 0 ? train.micro_batch : std::max<int64_t>(result.largest_micro_batch, 1);
  shape.micro_batch = result.micro_batch;
  result.memory = plan_memory(model.spec(), model.residual(), count, shape);
  return result;
}
Forecast forecast(const Config& config, int64_t vocab_size, const Machine& machine,
                  int64_t valid_tokens) {
  Decoder model(decoder_spec(config, vocab_size), *config.train.precision, device_of(config));
  model.use_kernels(config.train.kernels);
  return forecast(model, config, machine, valid_tokens);
}

UserError beyond_memory(const Forecast& f) {
  return expected(
      fmt::format("a memory plan within the {} that are free", format_bytes(f.available)),
      fmt::format("{} for micro_batch = {}", format_bytes(f.memory.total()), f.micro_batch), {},
      f.largest_micro_batch > 0
          ? fmt::format("train.micro_batch = {} fits", f.largest_micro_batch)
          : "not even one row at a time fits: train.recompute = \"layer\", or a smaller model");
}

double expected_step_seconds(const Forecast& f, const Config& config, double peak) {
  return f.flops_per_token * tokens_per_step(config) / (kExpectedShareOfPeak * peak);
}

std::string forecast_text(const Forecast& f) {
  return fmt::format(
      "back end         {}\n"
      "parameters       {}\n"
      "FLOPs per token  {} (forward and backward)\n"
      "memory plan      {} = {} parameters and optimizer + {} activations of {} rows + {} "
      "evaluation "
      "+ {} process\n",
      f.backend_words, format_count(static_cast<double>(f.parameters)),
      format_magnitude(f.flops_per_token), format_bytes(f.memory.total()),
      format_bytes(f.memory.parameters), format_bytes(f.memory.activations), f.micro_batch,
      format_bytes(f.memory.evaluation), format_bytes(f.memory.base));
}

}  // namespace wavroute
