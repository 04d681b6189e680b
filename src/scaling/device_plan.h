// Memory and traffic of training on several devices, from the sizes of one model: what --dry-run
// --devices prints and docs/scaling.md tabulates. Formulas only: nothing is measured.
#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace wavroute::scaling {

// Bytes of a number of parameters, gradients and the residual stream (fp32).
inline constexpr double kWide = 4;

// One model. Bytes "per token" are of one training pass, forward and backward.
struct ModelSizes {
  std::string scheme;
  int64_t layers = 1;
  int64_t width = 1;
  int64_t kv_heads = 1;
  int64_t hidden = 1;
  int64_t context = 1;            // tokens of a sequence
  double kv_width = 1;            // numbers of a token's keys, and of its values, of one layer
  double parameters = 0;          // all
  double embedding = 0;           // of these, of the token embedding
  double head = 0;                // and of what follows the last layer, without a tied projection
  double tied = 0;                // of the embedding that is the output projection too; 0: untied
  double narrow = 4;              // bytes of a number in the compute type
  double kept = 0;                // bytes per token that sublayers keep for their backward
  int64_t kept_layers = 1;        // whose `kept` is there at once: all, without recomputation
  double passing = 0;             // bytes per token of what comes and goes, logits among it
  double stream = 0;              // bytes per token of the residual stream
  double flops_per_token = 0;     // forward and backward
  std::vector<double> carried;    // [layers]: tensors of [tokens, width] that a stage which begins
                                  // with this layer is sent
  int64_t earlier_positions = 0;  // of what a sublayer reads that its scheme looks at
  bool shares_layers = false;     // one stored layer stands at several depths

  // Of one layer, on average.
  [[nodiscard]] double layer_parameters() const {
    return (parameters - embedding - head) / static_cast<double>(layers);
  }
  // Of a parameter's copy in the compute type; 0 where that is fp32.
  [[nodiscard]] double copy_bytes() const { return narrow < kWide ? narrow : 0; }
};

struct Training {
  int64_t batch = 1;         // sequences of a step, on all devices together
  int64_t micro_batch = 0;   // sequences of a pass on one device at most; 0: the most that fit
  double device_memory = 0;  // bytes that a plan may take of one device; 0: not known
  double other = 0;          // bytes of the process, and of evaluation, on each device
};

enum class Strategy { kDataParallel, kZero1, kFullySharded, kTensorParallel, kPipeline };
inline constexpr std::array kStrategies = {Strategy::kDataParallel, Strategy::kZero1,
                                           Strategy::kFullySharded, Strategy::kTensorParallel,
                                           Strategy::kPipeline};
[[nodiscard]] std::string_view name_of(Strategy strategy);

// One device's part in a step; of a pipeline, the stage that takes most memory and the one that
// sends most.
struct DeviceShare {
  Strategy strategy = Strategy::kDataParallel;
  std::string why_not;      // why these devices can't be used so; empty: they can
  int64_t micro_batch = 0;  // sequences of a pass
  int64_t passes = 0;       // of a step
  // Bytes.
  double parameters = 0;  // values, the copy in the compute type, and what is gathered for a pass
  double gradients = 0;
  double optimizer = 0;  // both moments
  double activations = 0;
  double other = 0;
  double sent = 0;           // bytes that the device sends in a step
  double flops = 0;          // that it computes in a step
  double idle = 0;           // share of a step in which a pipeline's stage waits for the others
  std::optional<bool> fits;  // nothing: the memory of a device is not known

  [[nodiscard]] double total() const {
    return parameters + gradients + optimizer + activations + other;
  }
  [[nodiscard]] double flops_per_sent_byte() const { return sent > 0 ? flops / sent : 0; }
};

// Bytes that each of N devices sends while a ring reduces `bytes` to sums that are scattered over
// them, or gathers `bytes` that are: (N - 1) / N of them. An all-reduce is one after the other.
[[nodiscard]] double ring_pass(double bytes, int64_t devices);
[[nodiscard]] double ring_all_reduce(double bytes, int64_t devices);

// The first layer of stage `stage`, from 0: the first stages have one layer more where the number
// of stages doesn't divide the layers.
[[nodiscard]] int64_t first_layer(int64_t stage, int64_t stages, int64_t layers);
// Tensors of [tokens, width] that pass the boundary between stages which passes most; 0: one stage.
[[nodiscard]] double widest_boundary(const ModelSizes& model, int64_t stages);

[[nodiscard]] DeviceShare share_of(const ModelSizes& model, const Training& training,
                                   Strategy strategy, int64_t devices);

// A prompt of `context` tokens whose positions are divided among the devices.
struct PrefillShare {
  double keys_and_values = 0;  // bytes that a device sends, so that all have all keys and values
  double scheme = 0;           // and for what the scheme looks at besides a token's own position
};
[[nodiscard]] PrefillShare prefill_share(const ModelSizes& model, int64_t devices);

struct DevicePlan {
  int64_t devices = 1;
  ModelSizes model;
  Training training;
  std::vector<DeviceShare> shares;  // in the order of kStrategies
  PrefillShare prefill;
};
[[nodiscard]] DevicePlan plan_devices(const ModelSizes& model, const Training& training,
                                      int64_t devices);

// What --dry-run --devices prints, with a newline at the end.
[[nodiscard]] std::string device_plan_text(const DevicePlan& plan);
[[nodiscard]] nlohmann::ordered_json device_plan_json(const DevicePlan& plan);

}  // namespace wavroute::scaling
