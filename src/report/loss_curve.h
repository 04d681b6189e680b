// Validation losses over the tokens of a run: means over seeds, and where one reaches a target.
#pragma once

#include <optional>
#include <span>
#include <vector>

namespace wavroute {

struct CurvePoint {
  double tokens = 0.0;  // trained on so far
  double loss = 0.0;    // validation, nats per token
};

// The mean of several runs' losses where all of them were evaluated; by tokens.
[[nodiscard]] std::vector<CurvePoint> mean_curve(std::span<const std::vector<CurvePoint>> curves);

// The tokens at which the line through the points is first at `target` or below; nothing where it
// never is. A curve that begins there gives its first point.
[[nodiscard]] std::optional<double> tokens_to_target(std::span<const CurvePoint> curve,
                                                     double target);

// The mean loss of the last `count` >= 1 points, or of all where there are fewer; nothing without
// points.
[[nodiscard]] std::optional<double> mean_of_last(std::span<const CurvePoint> curve,
                                                 std::size_t count);

}  // namespace wavroute
