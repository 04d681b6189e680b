#include "scaling/device_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace wavroute::scaling {
namespace {

constexpr double kMostRows = 1e9;

double real(int64_t n) { return static_cast<double>(n); }

// What of a step one device computes and how much memory a pass takes there.
struct Work {
  int64_t sequences = 0;       // of a step that the device takes part in
  double per_token = 0;        // bytes of a pass, of every micro-batch that is under way
  double once = 0;             // bytes of a pass per token, however many are under way
  int64_t most_under_way = 1;  // micro-batches
};

int64_t largest_divisor_up_to(int64_t number, int64_t most) {
  int64_t divisor = std::clamp<int64_t>(most, 1, number);
  while (number % divisor != 0) --divisor;
  return divisor;
}

// Sets micro_batch, passes and activations. The parameters' bytes are there already.
void set_passes(const ModelSizes& model, const Training& training, const Work& work,
                DeviceShare& share) {
  const double context = real(model.context);
  int64_t most = training.micro_batch;
  if (most == 0) {
    // Those that fit; of a pipeline one, because that leaves its stages idle least.
    const double free = training.device_memory - share.total();
    const double rows = free / (context * (work.per_token + work.once));
    most = work.most_under_way > 1 ? 1 : static_cast<int64_t>(std::clamp(rows, 1.0, kMostRows));
  }
  share.micro_batch = largest_divisor_up_to(work.sequences, most);
  share.passes = work.sequences / share.micro_batch;
  const double under_way = real(std::min(work.most_under_way, share.passes));
  share.activations = real(share.micro_batch) * context * (under_way * work.per_token + work.once);
}

// The bytes of `parameters` where a device holds 1/`values` of values and gradients, and
// 1/`moments` of the optimizer's state.
void set_parameters(const ModelSizes& model, double parameters, double values, double moments,
                    DeviceShare& share) {
  share.parameters = parameters * (kWide + model.copy_bytes()) / values;
  share.gradients = parameters * kWide / values;
  share.optimizer = parameters * 2 * kWide / moments;
}

double all_tokens(const ModelSizes& model, const Training& training) {
  return real(training.batch * model.context);
}

// Data parallel and both ways of sharding: a device takes its part of the batch.
void plan_data_parallel(const ModelSizes& model, const Training& training, int64_t devices,
                        DeviceShare& share) {
  if (training.batch % devices != 0) {
    share.why_not =
        fmt::format("{} devices don't divide a train.batch of {}", devices, training.batch);
    return;
  }
  const double n = real(devices), p = model.parameters;
  const bool shards_all = share.strategy == Strategy::kFullySharded;
  const double moments = share.strategy == Strategy::kDataParallel ? 1 : n;
  set_parameters(model, p, shards_all ? n : 1, moments, share);
  if (shards_all && devices > 1) {
    // Embedding and head for the whole pass; the layer that runs and the next one, and the gradient
    // of one before its reduction.
    const double layer = model.layer_parameters();
    share.parameters += model.narrow * (model.embedding + model.head + 2 * layer);
    share.gradients += kWide * layer;
  }
  set_passes(model, training,
             {.sequences = training.batch / devices,
              .per_token = model.kept + model.stream,
              .once = model.passing},
             share);
  switch (share.strategy) {
    case Strategy::kZero1:  // gradients reduced and scattered, then values gathered
      share.sent = 2 * ring_pass(kWide * p, devices);
      break;
    case Strategy::kFullySharded:  // of every pass: values twice, gradients once
      share.sent = real(share.passes) *
                   (2 * ring_pass(model.narrow * p, devices) + ring_pass(kWide * p, devices));
      break;
    default:
      share.sent = ring_all_reduce(kWide * p, devices);
  }
  share.flops = model.flops_per_token * all_tokens(model, training) / n;
}

// Every matrix is divided, and between the products so are the sequences: norms, the stream and its
// routers are per token.
void plan_tensor_parallel(const ModelSizes& model, const Training& training, int64_t devices,
                          DeviceShare& share) {
  for (const auto& [what, size] :
       {std::pair{"model.kv_heads", model.kv_heads}, std::pair{"model.hidden", model.hidden},
        std::pair{"model.context", model.context}}) {
    if (size % devices == 0) continue;
    share.why_not = fmt::format("{} devices don't divide a {} of {}", devices, what, size);
    return;
  }
  const double n = real(devices);
  set_parameters(model, model.parameters, n, n, share);
  set_passes(model, training,
             {.sequences = training.batch,
              .per_token = (model.kept + model.stream) / n,
              .once = model.passing},
             share);
  // A sublayer's input is gathered and its output reduced and scattered; backwards the same for the
  // gradients, and the input is gathered again for those of the weights.
  constexpr double kExchanges = 5;
  const double row = model.narrow * real(model.width);
  share.sent =
      kExchanges * 2 * real(model.layers) * ring_pass(all_tokens(model, training) * row, devices);
  share.flops = model.flops_per_token * all_tokens(model, training) / n;
}

// One forward, one backward: a stage has as many micro-batches under way as there are stages from
// it to the last.
void plan_pipeline(const ModelSizes& model, const Training& training, int64_t stages,
                   DeviceShare& share) {
  if (stages > model.layers) {
    share.why_not = fmt::format("{} stages of {} layers", stages, model.layers);
    return;
  }
  if (model.shares_layers && stages > 1) {
    share.why_not = "stages can't share layers";
    return;
  }
  const double row = kWide * real(model.width);  // bytes of a token in a tensor that is sent
  const double tokens = all_tokens(model, training);
  DeviceShare fullest = share;
  double most_sent = 0;
  for (int64_t k = 0; k < stages; ++k) {
    const int64_t begin = first_layer(k, stages, model.layers);
    const int64_t end = first_layer(k + 1, stages, model.layers);
    const bool is_first = k == 0, is_last = k + 1 == stages;
    double parameters = real(end - begin) * model.layer_parameters();
    if (is_first) parameters += model.embedding;
    if (is_last) parameters += model.head + (is_first ? 0 : model.tied);
    DeviceShare stage = share;
    set_parameters(model, parameters, 1, 1, stage);
    const double part = real(end - begin) / real(model.layers);
    // With recomputation, only the micro-batch that is in its backward has what sublayers keep.
    const bool recomputes = model.kept_layers < model.layers;
    const double kept = model.kept * std::min(1.0, real(end - begin) / real(model.kept_layers));
    const auto carried_into = [&](int64_t layer) {
      return row * model.carried[static_cast<size_t>(layer)];
    };
    // What was sent to it, and in one backward at a time its gradient.
    const double received = is_first ? 0 : carried_into(begin);
    set_passes(model, training,
               {.sequences = training.batch,
                .per_token = (recomputes ? 0 : kept) + part * model.stream + received,
                .once = (recomputes ? kept : 0) + model.passing + received,
                .most_under_way = stages - k},
               stage);
    if (stage.total() > fullest.total()) fullest = stage;
    double sent = tokens * ((is_last ? 0 : carried_into(end)) + received);
    // The gradient of a tied embedding is the sum of two.
    if (is_first != is_last) sent += ring_all_reduce(kWide * model.tied, 2);
    most_sent = std::max(most_sent, sent);
  }
  share = fullest;
  share.sent = most_sent;
  share.flops = model.flops_per_token * tokens / real(stages);
  share.idle = real(stages - 1) / real(share.passes + stages - 1);
}

}  // namespace

std::string_view name_of(Strategy strategy) {
  switch (strategy) {
    case Strategy::kDataParallel:
      return "data parallel";
    case Strategy::kZero1:
      return "ZeRO-1";
    case Strategy::kFullySharded:
      return "FSDP";
    case Strategy::kTensorParallel:
      return "tensor parallel";
    case Strategy::kPipeline:
      return "pipeline";
  }
  return {};
}

double ring_pass(double bytes, int64_t devices) {
  return bytes * real(devices - 1) / real(devices);
}

double ring_all_reduce(double bytes, int64_t devices) { return 2 * ring_pass(bytes, devices); }

int64_t first_layer(int64_t stage, int64_t stages, int64_t layers) {
  return stage * (layers / stages) + std::min(stage, layers % stages);
}

double widest_boundary(const ModelSizes& model, int64_t stages) {
  double widest = 0;
  for (int64_t k = 1; k < stages; ++k) {
    const auto layer = static_cast<size_t>(first_layer(k, stages, model.layers));
    widest = std::max(widest, model.carried[layer]);
  }
  return widest;
}

DeviceShare share_of(const ModelSizes& model, const Training& training, Strategy strategy,
                     int64_t devices) {
  DeviceShare share;
  share.strategy = strategy;
  share.other = training.other;
  switch (strategy) {
    case Strategy::kPipeline:
      plan_pipeline(model, training, devices, share);
      break;
    case Strategy::kTensorParallel:
      plan_tensor_parallel(model, training, devices, share);
      break;
    default:
      plan_data_parallel(model, training, devices, share);
  }
  if (share.why_not.empty() && training.device_memory > 0) {
    share.fits = share.total() <= training.device_memory;
  }
  return share;
}

PrefillShare prefill_share(const ModelSizes& model, int64_t devices) {
  PrefillShare share;
  const double layers = real(model.layers);
  share.keys_and_values =
      ring_pass(layers * 2 * model.kv_width * model.narrow * real(model.context), devices);
  if (devices > 1) {
    share.scheme = 2 * layers * real(model.earlier_positions * model.width) * kWide;
  }
  return share;
}

DevicePlan plan_devices(const ModelSizes& model, const Training& training, int64_t devices) {
  DevicePlan plan{devices, model, training, {}, prefill_share(model, devices)};
  for (const Strategy strategy : kStrategies) {
    plan.shares.push_back(share_of(model, training, strategy, devices));
  }
  return plan;
}

}  // namespace wavroute::scaling
