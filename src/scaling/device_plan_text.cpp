// The plan as a table for people and as JSON.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string>

#include "base/numbers.h"
#include "scaling/device_plan.h"

namespace wavroute::scaling {
namespace {

constexpr const char* kRow =
    "{:<16}{:>6}{:>8}{:>12}{:>11}{:>11}{:>13}{:>11}{:>11}  {:<5}{:>11}{:>12}\n";

std::string row_of(const DeviceShare& share) {
  if (!share.why_not.empty()) {
    return fmt::format("{:<16}     not possible: {}\n", name_of(share.strategy), share.why_not);
  }
  return fmt::format(fmt::runtime(kRow), name_of(share.strategy), share.micro_batch, share.passes,
                     format_bytes(share.parameters), format_bytes(share.gradients),
                     format_bytes(share.optimizer), format_bytes(share.activations),
                     format_bytes(share.other), format_bytes(share.total()),
                     !share.fits   ? "–"
                     : *share.fits ? "yes"
                                   : "no",
                     format_bytes(share.sent),
                     share.sent > 0 ? format_magnitude(share.flops_per_sent_byte()) : "–");
}

// Bytes for what a scheme adds to a prompt whose positions are divided.
std::string scheme_words(double bytes) {
  return bytes > 0 ? format_bytes(bytes) + " for the scheme" : "nothing for the scheme";
}

}  // namespace

std::string device_plan_text(const DevicePlan& plan) {
  const ModelSizes& m = plan.model;
  const Training& training = plan.training;
  std::string text = fmt::format(
      "devices          {}{}\n"
      "step             {} sequences of {} tokens on all of them\n\n",
      plan.devices,
      training.device_memory > 0 ? fmt::format(", each with the {} that a plan may take here",
                                               format_bytes(training.device_memory))
                                 : "",
      training.batch, m.context);
  text +=
      fmt::format(fmt::runtime(kRow), "of one device", "rows", "passes", "parameters", "gradients",
                  "optimizer", "activations", "other", "total", "fits", "sent/step", "FLOPs/byte");
  for (const DeviceShare& share : plan.shares) text += row_of(share);
  text += '\n';
  const DeviceShare& pipeline = plan.shares.back();
  if (pipeline.why_not.empty() && plan.devices > 1) {
    text += fmt::format(
        "pipeline         at most {:.0f} tensors of [tokens, width] from one of {} stages to the "
        "next; a stage waits {:.0f} % of a step\n",
        widest_boundary(m, plan.devices), plan.devices, 100 * pipeline.idle);
  }
  text += fmt::format(
      "prefill          {} tokens divided by position: a device sends {} of keys and values, {}\n",
      m.context, format_bytes(plan.prefill.keys_and_values), scheme_words(plan.prefill.scheme));
  return text;
}

nlohmann::ordered_json device_plan_json(const DevicePlan& plan) {
  using Json = nlohmann::ordered_json;
  const Training& training = plan.training;
  Json strategies = Json::array();
  for (const DeviceShare& share : plan.shares) {
    Json row = {{"strategy", name_of(share.strategy)}, {"possible", share.why_not.empty()}};
    if (share.why_not.empty()) {
      row.update(Json{{"micro_batch", share.micro_batch},
                      {"passes", share.passes},
                      {"parameter_bytes", share.parameters},
                      {"gradient_bytes", share.gradients},
                      {"optimizer_bytes", share.optimizer},
                      {"activation_bytes", share.activations},
                      {"other_bytes", share.other},
                      {"total_bytes", share.total()},
                      {"fits", share.fits ? Json(*share.fits) : Json()},
                      {"sent_bytes_per_step", share.sent},
                      {"flops_per_step", share.flops},
                      {"idle", share.idle}});
    } else {
      row["why_not"] = share.why_not;
    }
    strategies.push_back(std::move(row));
  }
  const bool has_stages = plan.shares.back().why_not.empty();
  Json boundaries = Json::array();
  for (int64_t k = 1; has_stages && k < plan.devices; ++k) {
    const int64_t layer = first_layer(k, plan.devices, plan.model.layers);
    const double tensors = plan.model.carried[static_cast<size_t>(layer)];
    boundaries.push_back(
        {{"layer", layer},
         {"tensors", tensors},
         {"bytes_per_token", tensors * static_cast<double>(plan.model.width) * kWide}});
  }
  return {
      {"devices", plan.devices},
      {"device_memory_bytes", training.device_memory > 0 ? Json(training.device_memory) : Json()},
      {"batch", training.batch},
      {"context", plan.model.context},
      {"strategies", std::move(strategies)},
      {"pipeline_boundaries", std::move(boundaries)},
      {"prefill",
       {{"keys_and_values_bytes", plan.prefill.keys_and_values},
        {"scheme_bytes", plan.prefill.scheme}}}};
}

}  // namespace wavroute::scaling
