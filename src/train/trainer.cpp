#include "train/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>

#include "base/numbers.h"
#include "inspect/layer_sizes.h"
#include "io/file.h"
#include "model/device.h"
#include "train/backend_words.h"
#include "train/process.h"
#include "train/run_summary.h"
#include "train/sample.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

// Takes the checkpoints after `step` (-1: all) out of the run: left there, a later resume would
// jump to them. Metrics come after them: those without a checkpoint of their step are cut by the
// next resume.
void give_up_later(const RunPaths& paths, int64_t step, Console& console) {
  const auto say = [&](const SetAside& moved) {
    console.warn(fmt::format("set aside {} as {}: remove it if you don't need it",
                             moved.from.string(), moved.to.filename().string()));
  };
  std::ranges::for_each(set_aside_later(paths.root, step), say);
  if (step >= 0) {
    cut_metrics(paths.metrics(), step);
  } else if (is_there(paths.metrics())) {
    // The curve may be all that is left of a run whose checkpoints took too much space.
    say(set_aside(paths.metrics(), "earlier"));
  }
}

// Every so many steps (0: never), and after the last.
bool is_due(int64_t step, int64_t every, int64_t last) {
  return step == last || (every > 0 && step % every == 0);
}

std::string spelled(double value) {
  return std::isnan(value) ? std::string("nan") : fmt::format("{}", value);
}

bool all_finite(const nlohmann::json& value) {
  if (value.is_number_float()) return std::isfinite(value.get<double>());
  return !value.is_structured() || std::ranges::all_of(value, all_finite);
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
      plan_{config_.train.micro_batch, config_.train.recompute, config_.optimizer.clip} {
  // A prompt that can't be read would end the run at its first evaluation.
  static_cast<void>(session.corpus.tokenizer->encode(config_.sample.prompt, "sample.prompt"));
  state_.progress.steps = state_.run_steps = config_.train.steps;
  state_.train_sha256 = session.corpus.train_sha256;
  state_.valid_sha256 = session.corpus.valid_sha256;
}

void Trainer::resume(const std::filesystem::path& checkpoint,
                     const std::optional<std::string>& init_sha256) {
  check_same_text(checkpoint, state_, config_.data);
  check_same_tokenizer(checkpoint, *session_.corpus.tokenizer);
  state_ = load_checkpoint(checkpoint, *session_.model, optimizer_);
  session_.init_sha256 = state_.init_sha256;
  session_.companions = state_.companions;
  if (init_sha256 && *init_sha256 != state_.init_sha256) {
    const auto named = [](const std::string& sha256) {
      return sha256.empty() ? std::string("none") : "sha256 " + sha256;
    };
    throw expected(
        fmt::format("the weights that the run started from ({})", named(state_.init_sha256)),
        named(*init_sha256), "for train.init", "give another --out for a new run");
  }
  check_tokens(checkpoint, state_, session_.tokens_per_step());
  if (config_.train.steps > state_.run_steps) {
    const ExtendedPlan extended =
        extend_plan(config_.schedule, schedule_plan(), state_.progress.step, config_.train.steps);
    console_.warn(extended.words);
    state_.run_steps = extended.plan.end;
  }
  // Before anything of a longer run is taken away: a kill must not leave its loss behind.
  if (state_.progress.step < config_.train.steps) say_running();
  saved_step_ = state_.progress.step;
  last_val_loss_ = state_.val_loss;
  last_bits_per_byte_ = state_.bits_per_byte;
  give_up_later(paths_, state_.progress.step, console_);
  // Whoever was killed between a checkpoint and this left one too many.
  retain_checkpoints(paths_.root, config_.train.keep, state_.progress.step, on_left());
  console_.note(fmt::format("resumed from {}", checkpoint.string()));
}

void Trainer::begin() {
  if (is_there(paths_.summary())) say_running();  // as in resume()
  give_up_later(paths_, -1, console_);
}

SchedulePlan Trainer::schedule_plan() const { return {state_.progress.steps, state_.run_steps}; }

bool Trainer::run() {
  const StopSignal stop;
  JsonlWriter metrics(paths_.metrics());
  peak_flops_ =
      measure_product_peak(session_.model->precision(), config_.model,
                           plan_.micro_batch * config_.model.context, session_.model->device());
  state_.init_sha256 = session_.init_sha256;
  state_.companions = session_.companions;
  announce();
  const bool trains = state_.progress.step < config_.train.steps;
  if (trains) say_running();
  sinks_.emplace(config_.train.sinks, paths_, console_);
  try {
    train(metrics);
  } catch (...) {
    if (trains && status_ != kDiverged) try_status(kFailed);
    throw;
  }
  if (state_.progress.step < config_.train.steps) {
    try_status(kStopped);
    sinks_.reset();
    console_.note(fmt::format("stopped at step {}; a checkpoint is written", state_.progress.step));
    return false;
  }
  // A run that had finished before keeps what it said, unless it was killed before it could say it.
  if (total_.steps > 0 || !says_finished(paths_, config_.train.steps)) try_status(kFinished);
  sinks_.reset();
  return true;
}

void Trainer::train(JsonlWriter& metrics) {
  const int64_t steps = config_.train.steps;
  stepper_ = make_stepper(*session_.model, optimizer_, plan_);
  started_ = state_.progress.step;
  while (started_ < steps && !StopSignal::requested()) {
    start_step();
    const int64_t done = started_;
    const bool saves = is_due(done, config_.train.save_every, steps);
    const bool evaluates = is_due(done, config_.train.eval_every, steps);
    const bool logs = config_.train.log_layers > 0 && is_due(done, config_.train.log_layers, steps);
    const bool waits = saves || evaluates || logs || StopSignal::requested();
    const int64_t under_way = waits ? 0 : stepper_->most_under_way() - 1;
    while (started_ - state_.progress.step > under_way) finish_step(metrics);
    if (logs) log_layers(metrics);
    // A loss beside each checkpoint says which is the best, unless the user wants none.
    if (evaluates || (saves && config_.train.eval_every > 0)) evaluate(metrics);
    if (saves) save(metrics);
  }
  while (started_ > state_.progress.step) finish_step(metrics);
  if (saved_step_ != state_.progress.step) save(metrics);
}

void Trainer::set_status(std::string_view status) {
  RunFigures figures;
  figures.val_loss = last_val_loss_;
  figures.bits_per_byte = last_bits_per_byte_;
  figures.val_tokens = windows_.scored_tokens();
  figures.val_bytes = windows_.scored_bytes(*session_.corpus.tokenizer);
  figures.init_sha256 = session_.init_sha256;
  figures.schedule_steps = state_.progress.steps;
  if (total_.seconds > 0.0) {
    figures.tokens_per_s =
        static_cast<double>(total_.steps * session_.tokens_per_step()) / total_.seconds;
  }
  write_summary(paths_, session_, status, figures);
  status_ = status;
}

void Trainer::try_status(std::string_view status) {
  side_file(paths_.summary(), [&] { set_status(status); });
}

void Trainer::say_running() {
  if (summary_status(paths_) == kFinished) {
    set_status(kRunning);
  } else {
    try_status(kRunning);
  }
}

OnSkippedCheckpoint Trainer::on_left() const {
  return [this](const Checkpoint&, const std::string& why) {
    console_.warn(fmt::format("warning: {}: an old checkpoint is left; the run continues", why));
  };
}

void Trainer::side_file(const std::filesystem::path& path, const std::function<void()>& write) {
  try {
    write();
  } catch (const std::exception& error) {
    const std::string what = error.what();  // libtorch adds a stack trace after line 1
    console_.warn_side_file(path, what.substr(0, what.find('\n')));
  }
}

void Trainer::announce() const {
  const Decoder& model = *session_.model;
  const ModelConfig& m = model.spec().model;
  const std::string threads =
      model.device().is_cpu() ? fmt::format("{} threads ", config_.train.threads) : "";
  console_.say(fmt::format(
      "{}: {} layers, width {}, {} parameters, {}, {}on {}, back end {}", model.spec().scheme,
      m.layers, m.width, format_magnitude(static_cast<double>(model.parameters().count())),
      to_string(session_.model->precision()), threads, device_name(config_, session_.machine),
      backend_words(model.backend(), model.device(), model.precision())));
  console_.say(fmt::format("text: {}", session_.corpus.description));
  if (!session_.init_sha256.empty()) {
    console_.say(
        fmt::format("weights: those of {} (sha256 {})", config_.train.init, session_.init_sha256));
  }
  console_.say(fmt::format(
      "{} steps of {} tokens, micro-batches of {} rows, {} FLOPs a token, memory plan {}, matrix "
      "products at {:.0f} GFLOP/s",
      config_.train.steps, format_count(static_cast<double>(session_.tokens_per_step())),
      plan_.micro_batch, format_magnitude(session_.forecast.flops_per_token),
      format_bytes(session_.forecast.memory.total()), peak_flops_ / 1e9));
}

void Trainer::start_step() {
  if (started_ == state_.progress.step) since_ = std::chrono::steady_clock::now();
  const Batch batch = batch_of(batches_, started_);
  Pass pass{true, static_cast<uint64_t>(config_.train.seed), state_.progress};
  pass.progress.step = started_;
  stepper_->start(batch, pass, learning_rate(started_));
  ++started_;
  if (const std::string trouble = stepper_->take_trouble(); !trouble.empty()) {
    console_.warn(fmt::format("warning: steps are not recorded, which makes them slower: {}",
                              trouble.substr(0, trouble.find('\n'))));
  }
}

void Trainer::finish_step(JsonlWriter& metrics) {
  const double lr = learning_rate(state_.progress.step);
  const TrainStepResult result = stepper_->finish();
  if (!result.is_finite()) stop_at(result);
  const auto now = std::chrono::steady_clock::now();
  const std::chrono::duration<double> taken = now - since_;
  since_ = now;

  state_.progress.step += 1;
  state_.tokens += session_.tokens_per_step();
  metrics.append(step_row(result, lr, taken.count()));
  for (Interval* interval : {&interval_, &total_}) interval->add(result.loss, taken.count());
  if (is_due(state_.progress.step, config_.train.log_every, config_.train.steps)) {
    report_interval(result, lr);
  }
  sinks_->look();
  console_.bar(state_.progress.step, config_.train.steps, seconds_left());
}

double Trainer::learning_rate(int64_t step) const {
  return config_.optimizer.lr * schedule_factor(config_.schedule, step, schedule_plan());
}

void Trainer::stop_at(const TrainStepResult& result) {
  stop_diverged(
      expectation("a finite loss and gradient norm",
                  fmt::format("loss {} and gradient norm {}",
                              spelled(result.loss + result.auxiliary), spelled(result.grad_norm)),
                  fmt::format("at step {}", state_.progress.step + 1)),
      "nothing was updated");
}

nlohmann::ordered_json Trainer::step_row(const TrainStepResult& result, double lr,
                                         double seconds) const {
  nlohmann::ordered_json row = {
      {"step", state_.progress.step},
      {"tokens", state_.tokens},
      {"loss", result.loss},
      {"lr", lr},
      {"grad_norm", result.grad_norm},
      {"step_ms", seconds * 1e3},
      {"tokens_per_s", static_cast<double>(session_.tokens_per_step()) / seconds},
      {"peak_rss_bytes", peak_memory_bytes(session_.model->device())}};
  const bool halts = result.mean_depth > 0.0;
  if (halts || result.auxiliary != 0.0) row["aux_loss"] = result.auxiliary;
  if (halts) row["mean_depth"] = result.mean_depth;
  return row;
}

// One sequence of the step that has just been done, with the weights that it left.
void Trainer::log_layers(JsonlWriter& metrics) {
  const Batch batch = batch_of(batches_, state_.progress.step - 1);
  const at::Tensor ids = batch.slice(0, 1).inputs.to(session_.model->device());
  const nlohmann::ordered_json sizes = layer_sizes(*session_.model, ids, state_.progress);
  metrics.append({{"step", state_.progress.step}, {"layers", sizes}});
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
  const EvaluationOptions options{.progress = state_.progress};
  const Evaluation result =
      wavroute::evaluate(*session_.model, windows_, *session_.corpus.tokenizer, options);
  if (!result.is_finite()) {
    stop_diverged(expectation("a finite validation loss", spelled(result.loss),
                              fmt::format("after step {}", state_.progress.step)),
                  "no checkpoint is made of this step");
  }
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
  const std::filesystem::path map_file = paths_.routing();
  side_file(map_file, [&] {
    const nlohmann::json map = routing_map(*session_.model, windows_, options);
    if (!all_finite(map)) throw Failure(expectation("finite weights", "others"));
    if (!map.is_null()) write_file_atomic(map_file, map.dump() + "\n");
  });
  if (config_.sample.tokens == 0) return;
  const std::filesystem::path sample =
      paths_.samples() / fmt::format("step_{}.txt", state_.progress.step);
  side_file(sample, [&] {
    make_folders(paths_.samples());
    write_file_atomic(sample, sample_text(session_, state_.progress) + "\n");
  });
}

void Trainer::save(JsonlWriter& metrics) {
  if (const auto part = non_finite_part(*session_.model, optimizer_)) {
    stop_diverged(expectation("finite " + *part, "others",
                              fmt::format("after step {}", state_.progress.step)),
                  "no checkpoint is made of this step");
  }
  metrics.sync();
  const bool evaluated = evaluated_step_ == state_.progress.step;
  state_.val_loss = evaluated ? last_val_loss_ : std::nullopt;
  state_.bits_per_byte = evaluated ? last_bits_per_byte_ : std::nullopt;
  save_checkpoint(paths_.root, *session_.model, optimizer_, *session_.corpus.tokenizer, state_,
                  config_.train.keep, on_left());
  saved_step_ = state_.progress.step;
}

void Trainer::stop_diverged(const std::string& what, const std::string& consequence) {
  try_status(kDiverged);
  std::string good = "none (it diverged before the first)";
  try {
    if (const auto found = newest_valid_checkpoint(paths_.root)) good = found->path.string();
  } catch (const Error& error) {  // must not hide why training ended
    good = fmt::format("not known ({})", error.what());
  }
  throw Failure("training diverged: " + what,
                fmt::format("{}; the last good checkpoint is {}; a lower optimizer.lr, a longer "
                            "schedule.warmup or a smaller optimizer.clip may help",
                            consequence, good));
}

}  // namespace wavroute
