// Alpha-gated residual (a news article of June 2026): h_{l+1} = h_l + alpha_l * u_l, alpha_l in
// [0,1] per token, from trailing means of h_l. The windows trail, so that the gate stays causal;
// that, its rank and its initial values are ours.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "residual/additive.h"
#include "residual/coefficients.h"
#include "residual/options.h"
#include "residual/schemes.h"
#include "wavroute/error.h"

namespace wavroute::schemes {
namespace {

std::vector<OptionSpec> specs() {
  return {
      {"windows",
       OptionType::kIntList,
       std::vector<int64_t>{1, 2, 4, 8},
       "lengths of the trailing means that the gate sees",
       false,
       {}},
      {"rank",
       OptionType::kInt,
       std::string("auto"),
       "hidden size of the gate; auto: max(2, round(0.008 d)) [ours]",
       true,
       {}},
      {"per_channel", OptionType::kBool, false, "one alpha per channel, not per token", false, {}},
      {"stddev",
       OptionType::kFloat,
       0.02,
       "standard deviation of the initial W1; W2 starts at 0 [ours]",
       false,
       {}},
      {"bias", OptionType::kFloat, 4.0, "initial b2: alpha = sigmoid(4) = 0.98 [ours]", false, {}},
      {"freeze",
       OptionType::kFloat,
       0.1,
       "fraction of the training steps for which alpha is held at 1",
       false,
       {}},
      {"frozen",
       OptionType::kBool,
       false,
       "alpha is held at 1 (a checkpoint made before the freeze ended)",
       false,
       {}},
      {"gate_reuse",
       OptionType::kString,
       std::string("none"),
       "prompt: new tokens use the prompt's mean alpha",
       false,
       {"none", "prompt"}}};
}

struct Gate {
  Parameter* fc1 = nullptr;   // W1 [r, windows * d]
  Parameter* fc2 = nullptr;   // W2 [1 or d, r]
  Parameter* bias = nullptr;  // b2 [1 or d]
};

// Per executed sublayer: the last rows of h, and the prompt's mean gate.
class GateMemory final : public DecodeState {
 public:
  struct Entry {
    at::Tensor rows;        // [B, <= longest window - 1, d]
    at::Tensor mean_alpha;  // [B, 1, 1 or d]
  };
  explicit GateMemory(int64_t reach) : reach_(reach) {}
  Entry& at(const Site& site) { return entries_[{site.visit, site.index()}]; }
  // Once the windows are full their means divide by constants, and rows take the place of rows.
  [[nodiscard]] bool is_steady() const override {
    return std::ranges::all_of(entries_, [this](const auto& site_and_entry) {
      const Entry& entry = site_and_entry.second;
      return entry.mean_alpha.defined() || (entry.rows.defined() && entry.rows.size(1) == reach_);
    });
  }

 private:
  int64_t reach_;  // rows before the last one that the longest window sees
  std::map<std::pair<int64_t, int64_t>, Entry> entries_;
};

class Gated final : public AdditiveResidual {
 public:
  using AdditiveResidual::AdditiveResidual;

  void declare(ParameterTable& table) override {
    const int64_t rank = get<int64_t>(given(), "rank");
    const int64_t outputs = is_per_channel() ? size().width : 1;
    const auto inputs = static_cast<int64_t>(windows().size()) * size().width;
    for (int64_t i = 0; i < size().sublayers(); ++i) {
      const std::string prefix =
          fmt::format("model.layers.{}.{}_gate.", i / 2, i % 2 == 0 ? "self_attn" : "mlp");
      Gate& gate = gates_.emplace_back();
      gate.fc1 = &table.declare(prefix + "fc1.weight", {rank, inputs}, Decay::kNo,
                                {0.0, get<double>(given(), "stddev")});
      gate.fc2 = &table.declare(prefix + "fc2.weight", {outputs, rank}, Decay::kNo, {0.0});
      gate.bias = &table.declare(prefix + "fc2.bias", {outputs}, Decay::kNo,
                                 {get<double>(given(), "bias")});
    }
  }
  [[nodiscard]] bool is_its_terms() const override { return false; }
  // A fresh gate is sigmoid(bias) for every token. It would be frozen at 1 instead for the first
  // part of a training.
  [[nodiscard]] PlainStart start_from_plain() override {
    PlainStart start;
    start.update_scale = 1.0 + std::exp(-get<double>(given(), "bias"));
    start.options = {{"freeze", 0.0}};
    return start;
  }
  [[nodiscard]] std::unique_ptr<Stream> open(const StreamOptions& options) const override;
  [[nodiscard]] std::unique_ptr<DecodeState> decode_state() const override {
    return std::make_unique<GateMemory>(reach());
  }
  [[nodiscard]] double flops_per_token() const override {
    const Gate& gate = gates_.front();
    return 2.0 * static_cast<double>(size().sublayers() * (gate.fc1->count() + gate.fc2->count()));
  }
  [[nodiscard]] double kept_states() const override {
    return static_cast<double>(size().sublayers());  // every update
  }
  // One sublayer's sums, means and their gradients while its twin runs: about 16 rows per window,
  // as measured.
  [[nodiscard]] double standing_states(bool training) const override {
    return (training ? 16.0 : 4.0) * static_cast<double>(windows().size());
  }
  [[nodiscard]] int64_t earlier_positions() const override {
    return std::ranges::max(windows()) - 1;
  }
  [[nodiscard]] Options options(const Progress& progress) const override {
    Options all = given();
    all["frozen"] = is_frozen(progress);
    return all;
  }

  [[nodiscard]] bool is_frozen(const Progress& progress) const {
    if (progress.steps == 0) return get<bool>(given(), "frozen");
    return static_cast<double>(progress.step) <
           get<double>(given(), "freeze") * static_cast<double>(progress.steps);
  }
  [[nodiscard]] const std::vector<int64_t>& windows() const {
    return get<std::vector<int64_t>>(given(), "windows");
  }
  [[nodiscard]] int64_t reach() const { return *std::ranges::max_element(windows()) - 1; }
  [[nodiscard]] bool is_per_channel() const { return get<bool>(given(), "per_channel"); }
  [[nodiscard]] bool reuses_prompt() const {
    return get<std::string>(given(), "gate_reuse") == "prompt";
  }
  [[nodiscard]] const Gate& gate(const Site& site) const {
    return gates_[static_cast<size_t>(site.index())];
  }

 private:
  std::vector<Gate> gates_;  // by Site::index()
};

// Means of h [B,T,d] over the trailing windows, [B,T,windows * d]. `before` [B,n,d] are the rows
// just before h, all that exist or at least as many as the longest window reaches back to.
at::Tensor trailing_means(const at::Tensor& h, const at::Tensor& before,
                          const std::vector<int64_t>& windows) {
  const int64_t length = h.size(1);
  const int64_t known = before.defined() ? before.size(1) : 0;
  const int64_t longest = *std::ranges::max_element(windows);
  const at::Tensor rows = before.defined() ? at::cat({before, h}, 1) : h;
  const at::Tensor padded = at::constant_pad_nd(rows, {0, 0, longest - 1, 0});
  const at::Tensor place =
      at::arange(known + 1, known + length + 1, h.options()).view({1, length, 1});
  std::vector<at::Tensor> sums(static_cast<size_t>(longest));
  for (int64_t back = 0; back < longest; ++back) {
    const at::Tensor shifted = padded.narrow(1, longest - 1 + known - back, length);
    sums[static_cast<size_t>(back)] =
        back == 0 ? shifted : sums[static_cast<size_t>(back - 1)] + shifted;
  }
  std::vector<at::Tensor> means;
  means.reserve(windows.size());
  for (const int64_t window : windows) {
    means.push_back(sums[static_cast<size_t>(window - 1)] / place.clamp_max(window));
  }
  return at::cat(means, -1);
}

class GatedStream final : public ComposedStream {
 public:
  GatedStream(const Gated& scheme, const StreamOptions& options)
      : ComposedStream(options),
        scheme_(scheme),
        frozen_(scheme.is_frozen(options.pass.progress)),
        memory_(static_cast<GateMemory*>(options.decode)) {}

 protected:
  [[nodiscard]] State next(const Site& site, const State& state, const at::Tensor& update,
                           bool live) const override {
    if (frozen_) return {state[0] + update};
    const at::Tensor alpha =
        coefficients_of(options(), {.tokens = true, .channels = scheme_.is_per_channel()}, [&] {
          return State{live && memory_ != nullptr ? remembered_alpha(site, state[0])
                                                  : alpha_of(site, state[0], {})};
        })[0];
    if (live && options().taps != nullptr) options().taps->on_gate(site, alpha);
    return {at::addcmul(state[0], alpha, update.to(state[0].scalar_type()))};
  }

 private:
  [[nodiscard]] at::Tensor alpha_of(const Site& site, const at::Tensor& h,
                                    const at::Tensor& before) const {
    const Gate& gate = scheme_.gate(site);
    const at::Tensor summary = trailing_means(h, before, scheme_.windows());
    const at::Tensor hidden = at::silu(at::linear(summary, gate.fc1->value));
    return at::sigmoid(at::linear(hidden, gate.fc2->value, gate.bias->value));
  }

  // Decoding: the windows reach into rows of earlier calls.
  [[nodiscard]] at::Tensor remembered_alpha(const Site& site, const at::Tensor& h) const {
    GateMemory::Entry& entry = memory_->at(site);
    if (scheme_.reuses_prompt()) {
      if (entry.mean_alpha.defined()) return entry.mean_alpha;
      at::Tensor alpha = alpha_of(site, h, {});
      entry.mean_alpha = alpha.mean(1, true);
      return alpha;
    }
    at::Tensor alpha = alpha_of(site, h, entry.rows);
    const at::Tensor rows = entry.rows.defined() ? at::cat({entry.rows, h}, 1) : h;
    const int64_t kept = std::min(scheme_.reach(), rows.size(1));
    const at::Tensor last = rows.narrow(1, rows.size(1) - kept, kept);
    if (entry.rows.defined() && entry.rows.size(1) == kept) {
      entry.rows.copy_(last);  // a recorded pass finds it where it was
    } else {
      entry.rows = last.clone();
    }
    return alpha;
  }

  const Gated& scheme_;
  bool frozen_;
  GateMemory* memory_;
};

std::unique_ptr<Stream> Gated::open(const StreamOptions& options) const {
  return std::make_unique<GatedStream>(*this, options);
}

std::unique_ptr<Residual> create(const Options& given, const ModelSize& size, double) {
  Options options = with_defaults(given, specs(), "gated");
  const auto& windows = get<std::vector<int64_t>>(options, "windows");
  if (windows.empty() || std::ranges::any_of(windows, [](int64_t w) { return w < 1; })) {
    throw expected("a list of lengths of at least 1", "others or none", "as residual.windows");
  }
  if (is_auto(options, "rank")) {
    options["rank"] = std::max<int64_t>(2, std::llround(0.008 * static_cast<double>(size.width)));
  }
  if (const int64_t rank = get<int64_t>(options, "rank"); rank < 1) {
    throw expected("a number of at least 1", rank, "as residual.rank");
  }
  if (const double stddev = get<double>(options, "stddev"); !(stddev >= 0.0)) {
    throw expected("a number of at least 0", stddev, "as residual.stddev");
  }
  if (const double freeze = get<double>(options, "freeze"); !(freeze >= 0.0 && freeze <= 1.0)) {
    throw expected("a number from 0 to 1", freeze, "as residual.freeze");
  }
  return std::make_unique<Gated>(std::move(options), size);
}

}  // namespace

SchemeInfo gated() {
  return {"gated", "a learned gate per token, from trailing means (June 2026 article)", specs(),
          create};
}

}  // namespace wavroute::schemes
