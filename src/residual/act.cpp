// Adaptive computation time over depth (arXiv 1603.08983, applied as in the Universal Transformer,
// arXiv 1807.03819): a token halts once its halting probabilities add up to 1 - epsilon.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <cmath>

#include "residual/additive.h"
#include "residual/coefficients.h"
#include "residual/options.h"
#include "residual/schemes.h"
#include "wavroute/error.h"

namespace wavroute::schemes {
namespace {

std::vector<OptionSpec> specs() {
  return {{"tau", OptionType::kFloat, 1e-3, "weight of the ponder cost N + R", false, {}},
          {"epsilon", OptionType::kFloat, 0.01, "a token halts at a sum of 1 - epsilon", false, {}},
          {"shared",
           OptionType::kBool,
           false,
           "one stored layer, applied up to L times (Universal Transformer)",
           false,
           {}},
          {"halt_bias",
           OptionType::kFloat,
           std::string("auto"),
           "initial b_n; auto: -log(L - 1) [ours]",
           true,
           {}}};
}

// The halting probabilities of a fresh model add up to about 1 after L - 1 layers.
double default_halt_bias(int64_t layers) {
  return -std::log(std::max(1.0, static_cast<double>(layers - 1)));
}

struct HaltingUnit {
  Parameter* weight = nullptr;  // w [1, d]
  Parameter* bias = nullptr;    // b [1]
};

class Act final : public AdditiveResidual {
 public:
  using AdditiveResidual::AdditiveResidual;

  void declare(ParameterTable& table) override {
    const double bias = get<double>(given(), "halt_bias");
    const int64_t units = shared() ? std::min<int64_t>(1, size().layers - 1) : size().layers - 1;
    for (int64_t i = 0; i < units; ++i) {
      const std::string prefix = fmt::format("model.layers.{}.halt.", i);
      HaltingUnit& unit = units_.emplace_back();
      unit.weight = &table.declare(prefix + "weight", {1, size().width}, Decay::kNo, {0.0});
      unit.bias = &table.declare(prefix + "bias", {1}, Decay::kNo, {bias});
    }
  }
  [[nodiscard]] bool is_its_terms() const override { return false; }
  // Nobody halts before the last layer: p = 8e-7 at each, and what they leave out of the mean of
  // the states is as little. With p = 0 a halting unit would have no gradient.
  [[nodiscard]] PlainStart start_from_plain() override {
    const at::NoGradGuard no_grad;
    for (const HaltingUnit& unit : units_) unit.bias->value.fill_(-14.0);
    return {};
  }
  [[nodiscard]] std::unique_ptr<Stream> open(const StreamOptions& options) const override;
  [[nodiscard]] int64_t stored_layer(int64_t layer) const override { return shared() ? 0 : layer; }
  void check_program() const override {
    throw expected("a scheme that takes layer programs", "act, which needs every layer to halt by",
                   {}, "all schemes but act and full_attnres take layer programs");
  }
  // Per layer: state, output and their gradients.
  [[nodiscard]] double kept_states() const override {
    return 3.0 * static_cast<double>(size().sublayers());
  }
  // State and output; the rest is a number per token.
  [[nodiscard]] double carried_states(int64_t) const override { return 2.0; }

  [[nodiscard]] int64_t layers() const { return size().layers; }
  [[nodiscard]] double tau() const { return get<double>(given(), "tau"); }
  [[nodiscard]] double threshold() const { return 1.0 - get<double>(given(), "epsilon"); }
  [[nodiscard]] const HaltingUnit& unit(int64_t layer) const {
    return units_[static_cast<size_t>(stored_layer(layer))];
  }

 private:
  [[nodiscard]] bool shared() const { return get<bool>(given(), "shared"); }

  std::vector<HaltingUnit> units_;  // of layers 1..L-1
};

// Entries of the state. Those past kPonder are constants for the gradient.
enum Entry : size_t {
  kState,    // s_n [B,T,d]
  kOutput,   // sum so far of p_n s_n, and R s_N [B,T,d]
  kSum,      // sum so far of p_n [B,T]
  kPonder,   // N + R of halted tokens [B,T]
  kRunning,  // 1 or 0 [B,T]
  kDepth,    // N of halted tokens [B,T]
};

class ActStream final : public ComposedStream {
 public:
  ActStream(const Act& scheme, const StreamOptions& options)
      : ComposedStream(options), scheme_(scheme) {}

  [[nodiscard]] at::Tensor read_out() override {
    at::Tensor out = ComposedStream::read_out();
    if (options().taps != nullptr) options().taps->on_depth(state_[kDepth]);
    return out;
  }
  [[nodiscard]] at::Tensor running_rows() const override {
    if (options().pass.training) return {};  // a masked update keeps the graph simple
    const at::Tensor rows = state_[kRunning].flatten().nonzero().flatten();
    return rows.numel() == state_[kRunning].numel() ? at::Tensor() : rows;
  }
  [[nodiscard]] at::Tensor auxiliary_loss() const override { return auxiliary(state_); }
  [[nodiscard]] at::Tensor mean_depth() const override { return state_[kDepth].mean(); }

 protected:
  [[nodiscard]] State start(const at::Tensor& embedding) const override {
    const at::Tensor zero = at::zeros_like(embedding.select(-1, 0));
    return {embedding, at::zeros_like(embedding), zero, zero, at::ones_like(zero), zero};
  }

  [[nodiscard]] State next(const Site& site, const State& before, const at::Tensor& update,
                           bool) const override {
    State after = before;
    const at::Tensor running = before[kRunning].detach();
    after[kState] =
        at::addcmul(before[kState], running.unsqueeze(-1), update.to(before[kState].scalar_type()));
    if (site.kind == SublayerKind::kMlp) halt(site.layer, running, after);
    return after;
  }

  [[nodiscard]] at::Tensor output(const State& state) const override { return state[kOutput]; }
  [[nodiscard]] at::Tensor auxiliary(const State& state) const override {
    return state[kPonder].mean() * scheme_.tau();
  }

 private:
  // How much of the state after a layer a token puts into its output, who halts there, and the sum
  // of p after it, all [B,T].
  [[nodiscard]] std::vector<at::Tensor> halting(int64_t layer, const at::Tensor& running,
                                                const State& state) const {
    const at::Tensor& sum = state[kSum];
    const at::Tensor remainder = 1.0 - sum;
    if (layer + 1 == scheme_.layers()) return {running * remainder, running, sum};
    const HaltingUnit& unit = scheme_.unit(layer);
    const at::Tensor p =
        at::sigmoid(at::matmul(state[kState], unit.weight->value[0]) + unit.bias->value);
    const at::Tensor full = (sum + p).detach() >= scheme_.threshold();
    return {running * at::where(full, remainder, p), running * full, sum + running * p};
  }

  // The halting unit after a layer.
  void halt(int64_t layer, const at::Tensor& running, State& state) const {
    const at::Tensor remainder = 1.0 - state[kSum];
    const std::vector<at::Tensor> halted = coefficients_of(
        options(), {.tokens = true}, [&] { return halting(layer, running, state); });
    const at::Tensor &weight = halted[0], &stops = halted[1];
    state[kSum] = halted[2];
    state[kOutput] = at::addcmul(state[kOutput], weight.unsqueeze(-1), state[kState]);
    const auto depth = static_cast<double>(layer + 1);
    state[kPonder] = state[kPonder] + stops * (remainder + depth);
    state[kRunning] = running - stops;
    state[kDepth] = (state[kDepth] + stops * depth).detach();
  }

  const Act& scheme_;
};

std::unique_ptr<Stream> Act::open(const StreamOptions& options) const {
  return std::make_unique<ActStream>(*this, options);
}

std::unique_ptr<Residual> create(const Options& given, const ModelSize& size, double) {
  Options options = with_defaults(given, specs(), "act");
  const double epsilon = get<double>(options, "epsilon");
  if (!(epsilon > 0.0 && epsilon < 1.0)) {
    throw expected("a number between 0 and 1", epsilon, "as residual.epsilon");
  }
  if (is_auto(options, "halt_bias")) options["halt_bias"] = default_halt_bias(size.layers);
  return std::make_unique<Act>(std::move(options), size);
}

}  // namespace

SchemeInfo act() {
  return {"act", "adaptive computation time over depth (arXiv 1603.08983)", specs(), create};
}

}  // namespace wavroute::schemes
