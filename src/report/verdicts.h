// What an inspection comes to, in words.
#pragma once

#include <nlohmann/json_fwd.hpp>

namespace wavroute {

// [{"text", "metric", "value", "threshold", "sublayer"}] of the document that wavroute inspect
// prints (docs/inspect.md), in the order of the metrics below; sublayer is null for a verdict on
// the whole model. Metrics, and when there is a verdict:
//   loss_if_last      the sublayers after the last one that still changes the loss by `threshold`
//   relative_update   of a sublayer whose update is less than `threshold` of the stream
//   reach_ratio       of each coefficient with a known start, where there was a schedule
//   top_weight        of a router that gives a source at least `threshold`
//   detail_share      of a router with details that gives them less than `threshold`
//   gate_open, gate_closed   the share of gates at 1 or 0, where at least `threshold`
//   mean_depth        where tokens halt
//   ablation          the rise of the loss where a sublayer's coefficients are put back
[[nodiscard]] nlohmann::ordered_json verdicts_of(const nlohmann::ordered_json& inspection);

}  // namespace wavroute
