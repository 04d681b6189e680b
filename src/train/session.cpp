#include "train/session.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "config/print.h"
#include "report/table.h"
#include "train/process.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

// Of the memory that is free, what a plan may use: the rest is for what a plan can't know.
constexpr double kUsableShare = 0.9;

// bf16 is worth its rounding where its products are faster by more than this.
constexpr double kWorthwhileSpeedup = 1.2;

// A processor that has the instructions may still be slower with them (libraries differ in what
// they make of them; a virtual machine may hide the matrix unit), so it is measured.
bool multiplies_bf16_fast(const Machine& machine, const ModelConfig& model) {
  constexpr int64_t kTokens = 1024;
  if (!machine.has_fast_bf16()) return false;
  const auto peak = [&](Precision precision) {
    return measure_product_peak(precision, model, kTokens, at::kCPU);
  };
  return peak(Precision::kBf16) > kWorthwhileSpeedup * peak(Precision::kFp32);
}

void plan_micro_batch(Session& session) {
  const DecoderSpec& spec = session.model->spec();
  const Residual& residual = session.model->residual();
  const int64_t count = session.model->parameters().count();
  TrainConfig& train = session.config.train;
  // On a GPU the plan is a figure to read, not a limit: its memory is not the machine's.
  const double available =
      session.model->device().is_cpu()
          ? kUsableShare * static_cast<double>(session.machine.memory_available)
          : std::numeric_limits<double>::infinity();
  const int64_t largest = largest_micro_batch(spec, residual, count, session.precision,
                                              session.recompute, train.batch, available);
  const auto plan = [&](int64_t micro) {
    return plan_memory(spec, residual, count, session.precision, session.recompute, micro);
  };
  const int64_t wanted = train.micro_batch > 0 ? train.micro_batch : std::max<int64_t>(largest, 1);
  session.plan = plan(wanted);
  if (session.plan.total() > available) {
    throw UserError(
        fmt::format("a memory plan within the {} that are free was expected, micro_batch = {} "
                    "needs {}",
                    format_bytes(available), wanted, format_bytes(session.plan.total())),
        largest > 0 ? fmt::format("train.micro_batch = {} fits", largest)
                    : "not even one row at a time fits: train.recompute = \"layer\", or a smaller "
                      "model");
  }
  train.micro_batch = wanted;
}

}  // namespace

at::Device device_of(const Config& config) {
  return config.train.device == "cuda" ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
}

Config resolve_machine(Config config, const Machine& machine) {
  TrainConfig& train = config.train;
  if (train.device == "auto") train.device = at::hasCUDA() ? "cuda" : "cpu";
  if (train.device == "cuda" && !at::hasCUDA()) {
    throw UserError("train.device = \"cuda\" was given, this libtorch sees no GPU",
                    "wavroute doctor says what it sees; device = \"auto\" takes what is there");
  }
  if (train.threads == 0) train.threads = machine.cores;
  at::set_num_threads(static_cast<int>(train.threads));
  if (train.precision == "auto") {
    train.precision =
        train.device == "cuda" || multiplies_bf16_fast(machine, config.model) ? "bf16" : "fp32";
  }
  return config;
}

Session open_session(const Config& config) {
  Session session;
  session.machine = probe_machine();
  session.config = resolve_machine(config, session.machine);
  Config& resolved = session.config;
  if (resolved.train.micro_batch > resolved.train.batch) {
    throw UserError(
        fmt::format("train.micro_batch must be at most train.batch, {} and {} were "
                    "given",
                    resolved.train.micro_batch, resolved.train.batch));
  }
  session.precision = parse_precision(resolved.train.precision);
  session.recompute = parse_recompute(resolved.train.recompute);
  session.corpus = open_corpus(resolved.data, resolved.model.context);

  DecoderSpec spec;
  spec.model = resolved.model;
  spec.vocab_size = session.corpus.tokenizer->vocab_size();
  spec.scheme = resolved.residual.scheme;
  spec.options = resolved.residual.options;
  session.model =
      std::make_unique<Decoder>(std::move(spec), session.precision, device_of(resolved));
  resolved.model = session.model->spec().model;
  resolved.residual.options = session.model->spec().options;
  session.flops_per_token =
      training_flops_per_token(session.model->spec(), session.model->residual());
  plan_micro_batch(session);  // before anything large is allocated
  session.model->allocate(static_cast<uint64_t>(resolved.train.seed));
  return session;
}

Config inherit_resolved(Config given, const Config& stored) {
  given.name = stored.name;
  given.compare = stored.compare;
  if (given.train.device == "auto") given.train.device = stored.train.device;
  if (given.train.precision == "auto") given.train.precision = stored.train.precision;
  if (given.train.threads == 0) given.train.threads = stored.train.threads;
  if (given.train.micro_batch == 0) given.train.micro_batch = stored.train.micro_batch;
  return given;
}

void check_resumable(const Config& stored, const Config& resumed) {
  constexpr std::array kAllowed = {"train.steps",      "train.log_every", "train.eval_every",
                                   "train.save_every", "train.keep",      "train.threads"};
  std::vector<std::string> refused;
  for (const std::string& key : changed_keys(stored, resumed)) {
    if (key.starts_with("sample.")) continue;  // never touches training
    if (std::ranges::find(kAllowed, key) == kAllowed.end()) refused.push_back(key);
  }
  if (!refused.empty()) {
    throw UserError(fmt::format("a resumed run must keep its configuration, changed: {}",
                                fmt::join(refused, ", ")),
                    "give another --out for a new run");
  }
  if (resumed.train.steps < stored.train.steps) {
    throw UserError(fmt::format("a resumed run can only get more steps: at least {} were "
                                "expected, {} were given",
                                stored.train.steps, resumed.train.steps),
                    "give another --out for a new run");
  }
}

}  // namespace wavroute
