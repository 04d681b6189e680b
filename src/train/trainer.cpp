#include "train/trainer.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>

#include "io/file.h"
#include "model/generate.h"
#include "report/table.h"
#include "train/process.h"
#include "train/schedule.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

constexpr int64_t kPromptTokens = 32;  // of validation text, where a sample has no prompt
constexpr int64_t kEvalRows = 8;

TrainStepPlan plan_of(const Session& session) {
  const Config& config = session.config;
  return {config.train.batch, config.train.micro_batch, config.model.context, session.recompute,
          config.optimizer.clip};
}

bool is_due(int64_t step, int64_t every, int64_t last) {
  return step == last || (every > 0 && step % every == 0);
}

}  // namespace

Trainer::Trainer(Session& session, const RunPaths& paths, Console& console)
    : session_(session),
      config_(session.config),
      paths_(paths),
      console_(console),
      optimizer_(session.model->parameters(), config_.optimizer),
      batches_(session.corpus.train, config_.model.context, config_.train.batch,
               static_cast<uint64_t>(config_.train.seed)),
      windows_(session.corpus.valid, config_.model.context, config_.data.eval_tokens),
      plan_(plan_of(session)) {
  // A prompt that can't be read would end the run at its first evaluation.
  static_cast<void>(session.corpus.tokenizer->encode(config_.sample.prompt, "sample.prompt"));
  state_.progress.steps = config_.train.steps;
  state_.train_sha256 = session.corpus.train_sha256;
  state_.valid_sha256 = session.corpus.valid_sha256;
}

void Trainer::resume(const std::filesystem::path& checkpoint) {
  check_same_text(checkpoint, state_, config_.data);
  state_ = load_checkpoint(checkpoint, *session_.model, optimizer_);
  state_.progress.steps = config_.train.steps;
  saved_step_ = state_.progress.step;
  last_val_loss_ = state_.val_loss;
  last_bits_per_byte_ = state_.bits_per_byte;
  // What came after this step is given up: left there, a later resume would jump to it.
  for (const Checkpoint& later : list_checkpoints(paths_.root)) {
    if (later.step > state_.progress.step) remove_tree(later.path);
  }
  cut_metrics(paths_.metrics(), state_.progress.step);
  console_.note(fmt::format("resumed from {}", checkpoint.string()));
}

bool Trainer::run() {
  const StopSignal stop;
  JsonlWriter metrics(paths_.metrics());
  peak_flops_ = measure_product_peak(session_.precision, config_.model,
                                     plan_.micro_batch * plan_.context, session_.model->device());
  announce();
  const int64_t steps = config_.train.steps;
  while (state_.progress.step < steps && !StopSignal::requested()) {
    step(metrics);
    const int64_t done = state_.progress.step;
    const bool saves = is_due(done, config_.train.save_every, steps);
    if (saves || is_due(done, config_.train.eval_every, steps)) evaluate(metrics);
    if (saves) save(metrics);
  }
  const bool finished = state_.progress.step >= steps;
  if (saved_step_ != state_.progress.step) save(metrics);
  if (finished && (total_.steps > 0 || !std::filesystem::exists(paths_.root / "summary.json"))) {
    write_summary("finished");
  } else if (!finished) {
    console_.note(fmt::format("stopped at step {}; a checkpoint is written", state_.progress.step));
  }
  return finished;
}

void Trainer::announce() const {
  const Decoder& model = *session_.model;
  const ModelConfig& m = model.spec().model;
  const std::string threads =
      model.device().is_cpu() ? fmt::format("{} threads ", config_.train.threads) : "";
  console_.say(fmt::format(
      "{}: {} layers, width {}, {} parameters, {}, {}on {}", model.spec().scheme, m.layers, m.width,
      format_magnitude(static_cast<double>(model.parameters().count())),
      to_string(session_.precision), threads, device_name(config_, session_.machine)));
  console_.say(fmt::format("text: {}", session_.corpus.description));
  console_.say(fmt::format(
      "{} steps of {} tokens, micro-batches of {} rows, {} FLOPs a token, memory plan {}, matrix "
      "products at {:.0f} GFLOP/s",
      config_.train.steps, format_count(static_cast<double>(session_.tokens_per_step())),
      plan_.micro_batch, format_magnitude(session_.forecast.flops_per_token),
      format_bytes(session_.forecast.memory.total()), peak_flops_ / 1e9));
}

void Trainer::step(JsonlWriter& metrics) {
  const auto start = std::chrono::steady_clock::now();
  const Progress at = state_.progress;
  const double lr = config_.optimizer.lr * schedule_factor(config_.schedule, at.step, at.steps);
  const Pass pass{true, static_cast<uint64_t>(config_.train.seed), at};
  const TrainStepResult result = train_step(
      *session_.model, optimizer_, plan_,
      [&](int64_t begin, int64_t end, std::span<int64_t> inputs, std::span<int64_t> targets) {
        batches_.fill(at.step, begin, end, inputs, targets);
      },
      pass, lr);
  if (!result.is_finite()) stop_diverged(result);

  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  state_.progress.step += 1;
  state_.tokens += session_.tokens_per_step();
  nlohmann::ordered_json row = {{"step", state_.progress.step},
                                {"tokens", state_.tokens},
                                {"loss", result.loss},
                                {"lr", lr},
                                {"grad_norm", result.grad_norm},
                                {"step_ms", seconds * 1e3},
                                {"tokens_per_s", session_.tokens_per_step() / seconds},
                                {"peak_rss_bytes", peak_memory_bytes(session_.model->device())}};
  if (result.mean_depth > 0.0) {
    row["aux_loss"] = result.auxiliary;
    row["mean_depth"] = result.mean_depth;
  }
  metrics.append(row);
  for (Interval* interval : {&interval_, &total_}) {
    interval->loss += result.loss;
    interval->seconds += seconds;
    interval->steps += 1;
  }
  if (is_due(state_.progress.step, config_.train.log_every, config_.train.steps)) {
    report_interval(result, lr);
  }
  console_.bar(state_.progress.step, config_.train.steps, seconds_left());
}

double Trainer::seconds_left() const {
  if (total_.steps == 0) return 0.0;
  return total_.seconds / static_cast<double>(total_.steps) *
         static_cast<double>(config_.train.steps - state_.progress.step);
}

void Trainer::report_interval(const TrainStepResult& result, double lr) {
  ProgressLine line;
  line.step = state_.progress.step;
  line.steps = config_.train.steps;
  line.loss = interval_.loss / static_cast<double>(interval_.steps);
  line.bits_per_byte = line.loss / std::numbers::ln2 / session_.corpus.valid_bytes_per_token;
  line.lr = lr;
  line.grad_norm = result.grad_norm;
  line.ms = 1e3 * interval_.seconds / static_cast<double>(interval_.steps);
  line.tokens_per_s = 1e3 * static_cast<double>(session_.tokens_per_step()) / line.ms;
  line.percent_of_peak =
      100.0 * line.tokens_per_s * session_.forecast.flops_per_token / peak_flops_;
  line.memory_bytes = peak_memory_bytes(session_.model->device());
  line.eta_seconds = seconds_left();
  console_.say(format_line(line));
  interval_ = {};
}

void Trainer::evaluate(JsonlWriter& metrics) {
  const EvaluationOptions options{state_.progress, nullptr, kEvalRows};
  const Evaluation result = wavroute::evaluate(*session_.model, windows_, config_.model.context,
                                               *session_.corpus.tokenizer, options);
  last_val_loss_ = result.loss;
  last_bits_per_byte_ = result.bits_per_byte;
  evaluated_step_ = state_.progress.step;
  nlohmann::ordered_json row = {{"step", state_.progress.step},
                                {"tokens", state_.tokens},
                                {"val_loss", result.loss},
                                {"bits_per_byte", result.bits_per_byte}};
  if (result.mean_depth > 0.0) row["mean_depth"] = result.mean_depth;
  metrics.append(row);
  console_.say(fmt::format("step {:>6}/{}  validation loss {:.4f}  bits/byte {:.4f}",
                           state_.progress.step, config_.train.steps, result.loss,
                           result.bits_per_byte));
  const nlohmann::json map = routing_map(*session_.model, windows_, config_.model.context, options);
  if (!map.is_null()) write_file_atomic(paths_.root / "routing.json", map.dump() + "\n");
  if (config_.sample.tokens > 0) write_sample();
}

void Trainer::write_sample() const {
  const Tokenizer& tokenizer = *session_.corpus.tokenizer;
  std::vector<uint32_t> prompt = tokenizer.encode(config_.sample.prompt, "sample.prompt");
  if (prompt.empty()) {
    for (int64_t i = 0; i < std::min(kPromptTokens, session_.corpus.valid.size()); ++i) {
      prompt.push_back(session_.corpus.valid.at(i));
    }
  }
  const Sampling sampling{config_.sample.temperature, config_.sample.top_k, config_.sample.top_p,
                          static_cast<uint64_t>(config_.train.seed)};
  StreamDecoder decoder(session_.corpus.tokenizer);
  std::string text = tokenizer.decode(prompt);
  static_cast<void>(generate(*session_.model, prompt, config_.sample.tokens, sampling, nullptr,
                             state_.progress, [&](uint32_t token) {
                               text += decoder.feed(token);
                               return true;
                             }));
  make_folders(paths_.samples());
  write_file_atomic(paths_.samples() / fmt::format("step_{}.txt", state_.progress.step),
                    text + decoder.finish() + "\n");
}

void Trainer::save(JsonlWriter& metrics) {
  metrics.sync();
  const bool evaluated = evaluated_step_ == state_.progress.step;
  state_.val_loss = evaluated ? last_val_loss_ : std::nullopt;
  state_.bits_per_byte = evaluated ? last_bits_per_byte_ : std::nullopt;
  save_checkpoint(paths_.root, *session_.model, optimizer_, *session_.corpus.tokenizer, state_,
                  config_.train.keep);
  saved_step_ = state_.progress.step;
}

void Trainer::stop_diverged(const TrainStepResult& result) {
  write_summary("diverged");
  const auto checkpoint = newest_valid_checkpoint(paths_.root);
  const auto spelled = [](double value) {
    return std::isnan(value) ? std::string("nan") : fmt::format("{}", value);
  };
  throw Failure(
      fmt::format("training diverged: a finite loss and gradient norm were expected at step {}, "
                  "loss {} and gradient norm {} came out",
                  state_.progress.step + 1, spelled(result.loss), spelled(result.grad_norm)),
      fmt::format("nothing was updated; the last good checkpoint is {}; a lower optimizer.lr, a "
                  "longer schedule.warmup or a smaller optimizer.clip may help",
                  checkpoint ? checkpoint->path.string() : "none (it diverged before the first)"));
}

void Trainer::write_summary(const std::string& status) const {
  const ModelConfig& m = config_.model;
  const at::Device device = session_.model->device();
  nlohmann::ordered_json summary = {{"status", status},
                                    {"label", config_.name},
                                    {"scheme", config_.residual.scheme},
                                    {"layers", m.layers},
                                    {"width", m.width},
                                    {"heads", m.heads},
                                    {"context", m.context},
                                    {"batch", config_.train.batch},
                                    {"precision", config_.train.precision},
                                    {"seed", config_.train.seed},
                                    {"steps", config_.train.steps},
                                    {"parameters", session_.model->parameters().count()},
                                    {"vocab_size", session_.model->spec().vocab_size},
                                    {"flops_per_token", session_.forecast.flops_per_token},
                                    {"corpus", session_.corpus.description},
                                    {"corpus_sha256", session_.corpus.train_sha256},
                                    {"corpus_valid_sha256", session_.corpus.valid_sha256},
                                    {"peak_rss_bytes", peak_memory_bytes(device)}};
  // What val_loss is the mean of: losses over other tokens are no distances from it.
  summary["val_tokens"] = windows_.scored_tokens();
  summary["val_bytes"] = windows_.scored_bytes(*session_.corpus.tokenizer);
  if (last_val_loss_) summary["val_loss"] = *last_val_loss_;
  if (last_bits_per_byte_) summary["bits_per_byte"] = *last_bits_per_byte_;
  if (total_.seconds > 0.0) {
    summary["tokens_per_s"] =
        static_cast<double>(total_.steps * session_.tokens_per_step()) / total_.seconds;
  }
  write_file_atomic(paths_.root / "summary.json", summary.dump(2) + "\n");
}

}  // namespace wavroute
