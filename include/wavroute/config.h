// The configuration of a run: every key of the TOML file, with its default. Torch-free.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "wavroute/choices.h"
#include "wavroute/options.h"

namespace wavroute {

// What scales the frequencies of the rotary embedding, under Hugging Face's names; the formulas are
// in src/config/rope_scaling.h. A member that its type doesn't use keeps its default.
struct RopeScaling {
  RopeType rope_type = RopeType::kDefault;
  double factor = 1.0;
  int64_t original_max_position_embeddings = 0;           // llama3, yarn; 0 = model.context
  double low_freq_factor = 1.0, high_freq_factor = 4.0;   // llama3
  double beta_fast = 32.0, beta_slow = 1.0;               // yarn
  std::optional<double> attention_factor = std::nullopt;  // yarn; none: 0.1 ln(factor) + 1
  bool truncate = true;                                   // yarn

  bool operator==(const RopeScaling&) const = default;
};

struct ModelConfig {
  int64_t layers = 12;
  int64_t width = 256;
  int64_t heads = 4;
  int64_t kv_heads = 0;  // 0 = heads
  int64_t head_dim = 0;  // 0 = width / heads
  int64_t hidden = 0;    // 0 = 4 * width [ours]
  int64_t context = 256;
  bool tie_embeddings = false;
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000.0;
  RopeScaling rope_scaling = {};
  bool attention_bias = false;  // of the query, key, value and output projections
  // Standard deviation of the initial weights of the two projections that write to the stream;
  // no value: "auto", 0.02 / sqrt(2 layers) [ours: GPT-2's rule].
  std::optional<double> output_init = std::nullopt;

  // Numbers of a query, key or value; heads must divide the width where head_dim is 0.
  [[nodiscard]] int64_t head_width() const { return head_dim > 0 ? head_dim : width / heads; }
};

struct ResidualConfig {
  std::string scheme = "wav";
  Options options;  // only what was given; the scheme fills in the rest
};

struct DataConfig {
  std::string train =
      "torch-source";  // a text file, a token file, a prepared folder, or "torch-source"
  std::string valid;   // empty: the corpus' own split, or the last 5 % of the text
  DataFormat format = DataFormat::kAuto;
  TokenizerKind tokenizer = TokenizerKind::kBytes;
  std::string tokenizer_path;  // of kFile
  UnknownText unknown = UnknownText::kError;
  int64_t eval_tokens = 1000000;
  int64_t max_bytes = 0;  // use only the first max_bytes of the training text; 0 = all
};

struct OptimizerConfig {
  OptimizerKind name = OptimizerKind::kAdamW;
  double lr = 1e-3;
  std::vector<double> betas = {0.9, 0.95};
  double eps = 1e-8;
  double weight_decay = 0.1;
  double clip = 1.0;  // 0 = none
};

struct ScheduleConfig {
  ScheduleKind name = ScheduleKind::kCosine;
  double warmup = 0.05;  // fraction of the steps
  double final = 0.1;    // fraction of the peak
  double decay = 0.2;    // wsd: fraction of the steps that decay
};

struct TrainConfig {
  int64_t steps = 2000;
  int64_t batch = 16;
  int64_t micro_batch = 0;  // 0 = the largest that fits the memory plan
  Recompute recompute = Recompute::kNone;
  int64_t seed = 1;
  std::string init = "";  // a folder whose weights training starts from; empty: none
  int64_t log_every = 10;
  int64_t log_layers = 0;  // sizes of the layers every so many steps; 0 = never
  int64_t eval_every = 200;
  int64_t save_every = 500;
  int64_t keep = 2;
  // Nothing: "auto", what this machine is best at.
  std::optional<Precision> precision = std::nullopt;
  std::optional<DeviceKind> device = std::nullopt;
  KernelChoice kernels = KernelChoice::kAuto;
  bool deterministic = true;       // on a GPU; false: faster gradients, of other bits every time
  int64_t threads = 0;             // 0 = OMP_NUM_THREADS where it is set, else all cores
  std::vector<std::string> sinks;  // programs that metrics.jsonl is forwarded to (config/sinks.h)
};

struct SampleConfig {
  std::string prompt = "";
  int64_t tokens = 200;  // 0 = no samples
  double temperature = 0.8;
  int64_t top_k = 0;  // 0 = all
  double top_p = 1.0;
};

// One row of a comparison besides the grid: a label and any overrides ("section.key = value").
struct CompareVariant {
  std::string label;
  std::vector<std::string> overrides;  // each as --set would take it: "optimizer.lr=3e-4"
};

struct CompareConfig {
  std::vector<std::string> schemes;
  std::vector<int64_t> depths;  // empty = model.layers
  std::vector<int64_t> seeds;   // empty = train.seed
  std::vector<CompareVariant> variants;
  int64_t last = 3;  // a run's loss is the mean of its last evaluations
  std::optional<double> target_loss = std::nullopt;  // none: "auto", the baseline's own
  std::vector<double> budgets;  // the baseline is also trained for these multiples of the steps
  std::vector<double> lrs;      // tried on the first seed; empty = optimizer.lr
  bool wider_baseline = true;   // beside schemes with over 1 % more parameters
  std::optional<int64_t> jobs = std::nullopt;  // cells at a time; none: "auto"
};

struct Config {
  std::string name;  // of the run; default: the file's name without .toml
  ModelConfig model;
  ResidualConfig residual;
  DataConfig data;
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  TrainConfig train;
  SampleConfig sample;
  CompareConfig compare;
};

}  // namespace wavroute
