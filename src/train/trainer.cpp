#include "train/trainer.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>
#include <utility>

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

std::unique_ptr<GradientSum> gradient_sum(Session& session, Processes& processes,
                                          Optimizer optimizer) {
  if (processes.size() == 1) return nullptr;
  return std::make_unique<GradientSum>(*session.model, processes, optimizer);
}

AdamW optimizer_of(const Session& session, const GradientSum* sum) {
  ParameterTable& table = session.model->parameters();
  const OptimizerConfig& config = session.config.optimizer;
  return sum != nullptr && sum->is_sharded() ? AdamW(table, config, sum->own())
                                             : AdamW(table, config);
}

Share rows_of_batch(int64_t batch, const Processes& processes) {
  if (batch < processes.size()) {
    throw expected(
        fmt::format("a train.batch of at least a row for each of {} processes", processes.size()),
        batch, {}, "fewer processes (--nproc-per-node), or a larger batch");
  }
  return rows_of(batch, processes.rank(), processes.size());
}

}  // namespace

Trainer::Trainer(Session& session, const RunPaths& paths, Console& console, Processes& processes,
                 Optimizer optimizer)
    : session_(session),
      config_(session.config),
      paths_(paths),
      console_(console),
      processes_(processes),
      sum_(gradient_sum(session, processes, optimizer)),
      optimizer_(optimizer_of(session, sum_.get())),
      rows_(rows_of_batch(config_.train.batch, processes)),
      batches_(session.corpus.train, config_.model.context, config_.train.batch,
               static_cast<uint64_t>(config_.train.seed)),
      windows_(session.corpus.valid, config_.model.context, config_.data.eval_tokens),
      plan_{std::min(config_.train.micro_batch, rows_.count()), config_.train.recompute,
            config_.optimizer.clip, config_.train.batch, sum_.get()} {
  // A prompt that can't be read would end the run at its first evaluation.
  static_cast<void>(session.corpus.tokenizer->encode(config_.sample.prompt, "sample.prompt"));
  state_.progress.steps = state_.run_steps = config_.train.steps;
  state_.train_sha256 = session.corpus.train_sha256;
  state_.valid_sha256 = session.corpus.valid_sha256;
}

void Trainer::resume(const std::filesystem::path& checkpoint,
                     const std::optional<std::string>& init_sha256) {
  in_first(processes_, [&] { read_checkpoint(checkpoint, init_sha256); });
  share_state(/*has_moments=*/true);
  saved_step_ = state_.progress.step;
}

void Trainer::share_state(bool has_moments) {
  if (processes_.size() == 1) return;
  const at::NoGradGuard no_grad;
  const at::Tensor numbers =
      at::tensor(std::vector<int64_t>{state_.progress.step, state_.progress.steps, state_.run_steps,
                                      state_.tokens, optimizer_.updates()},
                 at::kLong);
  processes_.broadcast(numbers);
  const int64_t* number = numbers.const_data_ptr<int64_t>();
  state_.progress = {number[0], number[1]};
  state_.run_steps = number[2];
  state_.tokens = number[3];
  optimizer_.set_updates(number[4]);
  for (const FlatGroup& group : session_.model->parameters().groups()) {
    if (group.value.numel() > 0) processes_.broadcast(group.value);
  }
  session_.model->parameters().refresh_compute();
  if (!has_moments) return;
  for (const auto* moments : {&optimizer_.first_moments(), &optimizer_.second_moments()}) {
    if (!sum_->is_sharded()) {
      for (const at::Tensor& flat : *moments) {
        if (flat.numel() > 0) processes_.broadcast(flat);
      }
      continue;
    }
    std::vector<at::Tensor>& whole =
        moments == &optimizer_.first_moments() ? read_.first : read_.second;
    for (size_t g = 0; g < session_.model->parameters().groups().size(); ++g) {
      const at::Tensor& value = session_.model->parameters().groups()[g].value;
      const at::Tensor flat = whole.empty() ? at::empty_like(value) : std::exchange(whole[g], {});
      if (flat.numel() > 0) processes_.broadcast(flat);
      for (size_t i = 0; i < sum_->own().size(); ++i) {
        const FlatPart& part = sum_->own()[i];
        if (part.group == g) (*moments)[i].copy_(part.of(flat));
      }
    }
  }
  read_ = {};
}

void Trainer::read_checkpoint(const std::filesystem::path& checkpoint,
                              const std::optional<std::string>& init_sha256) {
  check_same_text(checkpoint, state_, config_.data);
  check_same_tokenizer(checkpoint, *session_.corpus.tokenizer);
  if (sum_ != nullptr && sum_->is_sharded()) {
    AdamW whole(session_.model->parameters(), config_.optimizer);
    state_ = load_checkpoint(checkpoint, *session_.model, whole);
    optimizer_.set_updates(whole.updates());
    read_ = {whole.first_moments(), whole.second_moments()};
  } else {
    state_ = load_checkpoint(checkpoint, *session_.model, optimizer_);
  }
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
  last_val_loss_ = state_.val_loss;
  last_bits_per_byte_ = state_.bits_per_byte;
  give_up_later(paths_, state_.progress.step, console_);
  // Whoever was killed between a checkpoint and this left one too many.
  retain_checkpoints(paths_.root, config_.train.keep, state_.progress.step, on_left());
  console_.note(fmt::format("resumed from {}", checkpoint.string()));
}

void Trainer::begin() {
  in_first(processes_, [&] {
    if (is_there(paths_.summary())) say_running();  // as in resume()
    give_up_later(paths_, -1, console_);
  });
}

SchedulePlan Trainer::schedule_plan() const { return {state_.progress.steps, state_.run_steps}; }

bool Trainer::run() {
  const StopSignal stop;
  JsonlWriter metrics;
  in_first(processes_, [&] { metrics = JsonlWriter(paths_.metrics()); });
  share_state(/*has_moments=*/false);
  peak_flops_ =
      measure_product_peak(session_.model->precision(), config_.model,
                           plan_.micro_batch * config_.model.context, session_.model->device()) *
      processes_.size();
  state_.init_sha256 = session_.init_sha256;
  state_.companions = session_.companions;
  announce();
  const bool trains = state_.progress.step < config_.train.steps;
  if (trains) say_running();
  // The first process' file is all that they follow.
  sinks_.emplace(processes_.is_first() ? config_.train.sinks : decltype(config_.train.sinks)(),
                 paths_, console_);
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
  while (started_ < steps && !is_stopped()) {
    start_step();
    const int64_t done = started_;
    const bool saves = is_due(done, config_.train.save_every, steps);
    const bool evaluates = is_due(done, config_.train.eval_every, steps);
    const bool logs = config_.train.log_layers > 0 && is_due(done, config_.train.log_layers, steps);
    const bool waits = saves || evaluates || logs || is_stopped();
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

bool Trainer::is_stopped() const {
  return processes_.size() == 1 ? StopSignal::requested() : stop_asked_;
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
  if (!processes_.is_first()) return;
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
  if (!processes_.is_first()) return;
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
  if (processes_.size() > 1) {
    console_.say(fmt::format("{} processes, of {} rows each{}", processes_.size(), rows_.count(),
                             sum_->is_sharded() ? ", optimizer sharded" : ""));
  }
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
  const Batch batch = batch_of(batches_, started_).slice(rows_.begin, rows_.end);
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
  stop_asked_ = stop_asked_ || result.stop_asked;
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
  if (!processes_.is_first()) return;
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
  const EvaluationOptions options{.progress = state_.progress, .processes = &processes_};
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
  const auto part = non_finite_part(*session_.model, optimizer_);
  double parts = part ? 1.0 : 0.0;  // another process may find it in its moments
  processes_.sum({&parts, 1});
  if (parts > 0.0) {
    stop_diverged(expectation("finite " + part.value_or("moments"), "others",
                              fmt::format("after step {}", state_.progress.step)),
                  "no checkpoint is made of this step");
  }
  if (sum_ == nullptr || !sum_->is_sharded()) {
    in_first(processes_, [&] { write_checkpoint(metrics, optimizer_); });
  } else {
    AdamW whole(session_.model->parameters(), config_.optimizer);
    whole.set_updates(optimizer_.updates());
    gather_shares(*sum_, optimizer_.first_moments(), whole.first_moments());
    gather_shares(*sum_, optimizer_.second_moments(), whole.second_moments());
    in_first(processes_, [&] { write_checkpoint(metrics, whole); });
  }
  saved_step_ = state_.progress.step;
}

void Trainer::write_checkpoint(JsonlWriter& metrics, const AdamW& optimizer) {
  metrics.sync();
  const bool evaluated = evaluated_step_ == state_.progress.step;
  state_.val_loss = evaluated ? last_val_loss_ : std::nullopt;
  state_.bits_per_byte = evaluated ? last_bits_per_byte_ : std::nullopt;
  save_checkpoint(paths_.root, *session_.model, optimizer, *session_.corpus.tokenizer, state_,
                  config_.train.keep, on_left());
}

void Trainer::stop_diverged(const std::string& what, const std::string& consequence) {
  if (!processes_.is_first()) throw ProcessEnded(1);  // the first process says why
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
