#include "train/session.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <system_error>

#include "base/threads.h"
#include "config/print.h"
#include "model/device.h"
#include "ops/backend.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

// bf16 is worth its rounding if its products are faster by more than this.
constexpr double kWorthwhileSpeedup = 1.2;

// A processor that has the instructions may still be slower with them (libraries use them
// differently well; a virtual machine may hide the matrix unit), so it is measured.
bool multiplies_bf16_fast(const Machine& machine, const ModelConfig& model) {
  constexpr int64_t kTokens = 1024;
  if (!machine.has_fast_bf16()) return false;
  const auto peak = [&](Precision precision) {
    return measure_product_peak(precision, model, kTokens, at::kCPU);
  };
  return peak(Precision::kBf16) > kWorthwhileSpeedup * peak(Precision::kFp32);
}

// The same seed gives the same bits on a GPU too, where libtorch must be told so: otherwise
// attention's gradient is summed in any order.
void ask_for_repeatable_kernels(bool asked) {
  at::Context& context = at::globalContext();
  context.setDeterministicAlgorithms(asked, /*warn_only=*/false);
  context.setDeterministicFillUninitializedMemory(false);       // for debugging; a write per tensor
  setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*replace=*/0);  // libtorch requires a setting
}

// A folder that `data prepare` made.
bool is_prepared(const DataConfig& data) {
  std::error_code ignored;
  return std::filesystem::is_directory(data.train, ignored);
}

// A folder's own tokenizer, by its path.
void name_tokenizer(DataConfig& data, const Tokenizer& tokenizer) {
  const bool is_named = data.tokenizer != TokenizerKind::kBytes || tokenizer.name() == "bytes";
  if (is_named || !is_prepared(data)) return;
  data.tokenizer = TokenizerKind::kFile;
  data.tokenizer_path = (std::filesystem::path(data.train) / "tokenizer.json").string();
}

}  // namespace

Config resolve_machine(Config config, const Machine& machine) {
  TrainConfig& train = config.train;
  if (!train.device) train.device = at::hasCUDA() ? DeviceKind::kCuda : DeviceKind::kCpu;
  const bool on_gpu = train.device == DeviceKind::kCuda;
  if (on_gpu && !at::hasCUDA()) {
    throw expected("a GPU for train.device = \"cuda\"", "none that libtorch sees", {},
                   "wavroute doctor lists the devices; device = \"auto\" uses what is available");
  }
  if (on_gpu) ask_for_repeatable_kernels(train.deterministic);
  if (train.kernels == KernelChoice::kAuto) {
    const bool serves = !on_gpu || ops::why_no_cuda_backend().empty();
    train.kernels = serves ? KernelChoice::kFused : KernelChoice::kComposed;
  }
  train.threads = threads_to_use(train.threads, machine);
  at::set_num_threads(static_cast<int>(train.threads));
  if (!train.precision) {
    const bool is_fast = on_gpu || multiplies_bf16_fast(machine, config.model);
    train.precision = is_fast ? Precision::kBf16 : Precision::kFp32;
  }
  return config;
}

std::string device_name(const Config& config, const Machine& machine) {
  if (config.train.device == DeviceKind::kCpu) return machine.cpu_model;
  // The driver lists all of the machine, in its own order: a name is ours where all have it.
  const std::vector<std::string>& names = machine.gpus;
  const bool all_alike = !names.empty() && std::ranges::count(names, names[0]) == std::ssize(names);
  return all_alike ? names[0] : "a GPU";
}

int64_t vocabulary_of(const Config& config) {
  const bool is_bytes = config.data.tokenizer == TokenizerKind::kBytes;
  if (is_bytes && !is_prepared(config.data)) return make_bytes_tokenizer()->vocab_size();
  return open_corpus(config.data, config.model.context).tokenizer->vocab_size();
}

Session plan_session(const Config& config, BeyondMemory beyond, const Machine& machine) {
  Session session;
  session.machine = machine;
  session.config = resolve_machine(config, session.machine);
  Config& resolved = session.config;
  if (resolved.train.micro_batch > resolved.train.batch) {
    throw expected(
        fmt::format("a train.micro_batch of at most train.batch = {}", resolved.train.batch),
        resolved.train.micro_batch);
  }
  session.corpus = open_corpus(resolved.data, resolved.model.context);
  name_tokenizer(resolved.data, *session.corpus.tokenizer);
  session.model =
      std::make_unique<Decoder>(decoder_spec(resolved, session.corpus.tokenizer->vocab_size()),
                                *resolved.train.precision, device_of(resolved));
  session.model->use_kernels(resolved.train.kernels);
  resolved.model = session.model->spec().model;
  resolved.residual.options = session.model->spec().options;
  session.forecast =
      forecast(*session.model, resolved, session.machine, session.corpus.valid.size());
  if (!session.forecast.fits() && beyond == BeyondMemory::kRefuse) {
    throw beyond_memory(session.forecast);
  }
  resolved.train.micro_batch = session.forecast.micro_batch;
  return session;
}

Session open_session(const Config& config, BeyondMemory beyond, const Machine& machine) {
  Session session = plan_session(config, beyond, machine);
  session.model->allocate(static_cast<uint64_t>(session.config.train.seed));
  return session;
}

Config inherit_resolved(Config given, const Config& stored) {
  given.name = stored.name;
  given.compare = stored.compare;
  if (!given.train.device) given.train.device = stored.train.device;
  if (!given.train.precision) given.train.precision = stored.train.precision;
  if (given.train.kernels == KernelChoice::kAuto) given.train.kernels = stored.train.kernels;
  if (given.train.threads == 0) given.train.threads = stored.train.threads;
  if (given.train.micro_batch == 0) given.train.micro_batch = stored.train.micro_batch;
  return given;
}

void check_resumable(const Config& stored, const Config& resumed) {
  // A text and the first weights are known by their digests (check_same_text, Trainer::resume), not
  // by their paths.
  constexpr std::array kAllowed = {"train.steps",      "train.log_every",  "train.log_layers",
                                   "train.eval_every", "train.save_every", "train.keep",
                                   "train.threads",    "train.init",       "train.sinks",
                                   "data.train",       "data.valid"};
  std::vector<std::string> refused;
  for (const std::string& key : changed_keys(stored, resumed)) {
    if (key.starts_with("sample.")) continue;  // has no effect on training
    // Nor has the place of the tokenizer's file: the checkpoint's own says whether it is the same.
    const bool is_file = stored.data.tokenizer == TokenizerKind::kFile &&
                         resumed.data.tokenizer == TokenizerKind::kFile;
    if (key == "data.tokenizer" && is_file) continue;
    if (std::ranges::find(kAllowed, key) == kAllowed.end()) refused.push_back(key);
  }
  if (!refused.empty()) {
    throw expected("the configuration that the run began with",
                   fmt::format("another {}", fmt::join(refused, ", ")), {},
                   "give another --out for a new run");
  }
  if (resumed.train.steps < stored.train.steps) {
    throw expected(
        fmt::format("at least the {} steps of the run that is resumed", stored.train.steps),
        resumed.train.steps, "for train.steps", "give another --out for a new run");
  }
}

}  // namespace wavroute
