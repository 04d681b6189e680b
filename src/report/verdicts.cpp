#include "report/verdicts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

namespace wavroute {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kLossChange = 0.02;      // nats
constexpr double kSmallUpdate = 0.01;     // of the stream
constexpr double kReach = 2.0;            // of a random walk
constexpr double kOneSource = 0.95;       // of a router's weight
constexpr double kUnusedDetails = 0.01;   // of a router's weight
constexpr double kStuck = 0.99;           // of the gates
constexpr double kAblationChange = 0.01;  // nats

std::string percent(double share) { return fmt::format("{:.3g} %", 100.0 * share); }

class Verdicts {
 public:
  explicit Verdicts(const Json& inspection) : inspection_(inspection) {}

  Json take() {
    last_needed_layer();
    small_updates();
    moves();
    for (const Json& sublayer : inspection_.at("sublayers")) {
      one_source(sublayer);
      gate(sublayer);
    }
    details();
    depth();
    ablation();
    return std::move(list_);
  }

 private:
  void add(const std::string& text, const char* metric, double value, double threshold,
           const Json& sublayer) {
    list_.push_back({{"text", text},
                     {"metric", metric},
                     {"value", value},
                     {"threshold", threshold},
                     {"sublayer", sublayer}});
  }

  static std::string name(const Json& sublayer) { return sublayer.at("name"); }

  // The name of sublayer 1 .. M, or of the read-out, M + 1.
  [[nodiscard]] std::string name(int64_t sublayer) const {
    const Json& all = inspection_.at("sublayers");
    const auto place = static_cast<size_t>(sublayer - 1);
    return place < all.size() ? name(all[place]) : fmt::format("sublayer {}", sublayer);
  }

  void last_needed_layer() {
    const Json& all = inspection_.at("sublayers");
    if (all.size() < 2) return;
    const size_t sublayers = all.size() - 1;
    const double end = inspection_.at("loss");
    size_t needed = sublayers;  // sublayers up to it
    while (needed > 0 &&
           std::abs(all[needed - 1].at("loss_if_last").get<double>() - end) < kLossChange) {
      --needed;
    }
    // needed: those after needed + 1 may be left out.
    if (needed + 1 >= sublayers) return;
    const Json& last = all[needed];
    add(fmt::format("after {} the loss would already be {:.4f}, within {} of the end's {:.4f}: the "
                    "{} sublayers after it hardly change it",
                    name(last), last.at("loss_if_last").get<double>(), kLossChange, end,
                    sublayers - needed - 1),
        "loss_if_last", last.at("loss_if_last").get<double>() - end, kLossChange,
        last.at("sublayer"));
  }

  // How much of what the next sublayer reads an update is.
  void small_updates() {
    const Json& all = inspection_.at("sublayers");
    const Json& mixing = inspection_.at("depth_mixing");
    for (size_t i = 0; i + 1 < all.size(); ++i) {
      const double stream = all[i + 1].at("norms").at("stream");
      const double update = std::abs(mixing[i + 1][i + 1].get<double>()) *
                            all[i].at("norms").at("update").get<double>();
      if (!(stream > 0.0) || update >= kSmallUpdate * stream) continue;
      add(fmt::format("{} hardly changes the stream: what it adds has {} of the size of what the "
                      "next sublayer reads",
                      name(all[i]), percent(update / stream)),
          "relative_update", update / stream, kSmallUpdate, all[i].at("sublayer"));
    }
  }

  static std::string words(const std::string& kind) {
    static const std::map<std::string, std::string> known = {
        {"res_proj.weight", "router's query"},
        {"res_norm.weight", "router's key gain"},
        {"res_bias", "bias of the details"},
        {"residual_scale", "scale"},
        {"block_residual_scale", "scales of the blocks"},
        {"halt.weight", "halting weight"},
        {"halt.bias", "halting bias"},
        {"depth_weights", "depth weights"},
        {"gate.fc1.weight", "gate's first matrix"},
        {"gate.fc2.weight", "gate's second matrix"},
        {"gate.fc2.bias", "gate's bias"}};
    const auto found = known.find(kind);
    return found == known.end() ? kind : found->second;
  }

  void moves() {
    if (!inspection_.contains("coefficients")) return;
    for (const Json& move : inspection_.at("coefficients")) {
      const double ratio = move.at("ratio");
      const Json& sublayer = move.at("sublayer");
      const std::string what = words(move.at("kind")) +
                               (sublayer.is_null() ? "" : " of " + name(sublayer.get<int64_t>()));
      add(fmt::format("the {} {} its start: it moved {:.3g} times as far as a random walk under "
                      "Adam's updates",
                      what, ratio >= kReach ? "left" : "did not leave", ratio),
          "reach_ratio", ratio, kReach, sublayer);
    }
  }

  void one_source(const Json& sublayer) {
    const Json& weights = sublayer.at("weights");
    if (weights.size() < 2) return;
    const auto most = std::ranges::max_element(
        weights, {}, [](const Json& weight) { return weight.get<double>(); });
    if (most->get<double>() < kOneSource) return;
    const std::string source = sublayer.at("sources")[static_cast<size_t>(most - weights.begin())];
    add(fmt::format("{} reads one source, {}: {} of the weight", name(sublayer), source,
                    percent(most->get<double>())),
        "top_weight", most->get<double>(), kOneSource, sublayer.at("sublayer"));
  }

  void gate(const Json& sublayer) {
    const Json& gate = sublayer.at("gate");
    if (gate.is_null()) return;
    for (const auto& [key, where] : {std::pair("open", 1), std::pair("closed", 0)}) {
      const double share = gate.at(key);
      if (share < kStuck) continue;
      add(fmt::format("the gate of {} is stuck at {} for {} of the tokens", name(sublayer), where,
                      percent(share)),
          where == 1 ? "gate_open" : "gate_closed", share, kStuck, sublayer.at("sublayer"));
    }
  }

  static bool has_details(const Json& sublayer) {
    return std::ranges::any_of(sublayer.at("types"), [](const Json& type) {
      return type != "summary" && type != "embedding";
    });
  }

  void details() {
    double most = 0.0;
    size_t routers = 0;
    for (const Json& sublayer : inspection_.at("sublayers")) {
      if (!has_details(sublayer)) continue;
      const double share = sublayer.at("details");
      most = std::max(most, share);
      ++routers;
      if (share >= kUnusedDetails) continue;
      add(fmt::format("{} does not use its details: they get {} of its weight", name(sublayer),
                      percent(share)),
          "detail_share", share, kUnusedDetails, sublayer.at("sublayer"));
    }
    if (routers == 0 || most >= kUnusedDetails) return;
    add(fmt::format("details are never used: no router gives them more than {}", percent(most)),
        "detail_share", most, kUnusedDetails, nullptr);
  }

  void depth() {
    const Json& depth = inspection_.at("depth");
    if (depth.is_null()) return;
    const auto layers = static_cast<double>(depth.at("histogram").size());
    const double mean = depth.at("mean");
    const bool all = mean >= kStuck * layers;
    add(all ? fmt::format("nearly every token runs all {} layers (the mean is {:.2f})", layers,
                          mean)
            : fmt::format("tokens halt after {:.2f} of {} layers in the mean", mean, layers),
        "mean_depth", mean, kStuck * layers, nullptr);
  }

  void ablation() {
    if (!inspection_.contains("ablation")) return;
    for (const Json& entry : inspection_.at("ablation")) {
      const double rise = entry.at("difference");
      const bool matters = std::abs(rise) >= kAblationChange;
      add(fmt::format("with the coefficients of {} put back to their start the loss becomes {:.4f} "
                      "({:+.4f}){}",
                      entry.at("name").get<std::string>(), entry.at("loss").get<double>(), rise,
                      matters ? "" : ": what they learnt does not matter here"),
          "ablation", rise, kAblationChange, entry.at("sublayer"));
    }
  }

  const Json& inspection_;
  Json list_ = Json::array();
};

}  // namespace

Json verdicts_of(const Json& inspection) { return Verdicts(inspection).take(); }

}  // namespace wavroute
