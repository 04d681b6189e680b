// The sizes of a model's layers while it trains, in one forward of a few tokens.
#pragma once

#include <ATen/core/Tensor.h>

#include <nlohmann/json_fwd.hpp>

#include "wavroute/decoder.h"

namespace wavroute {

// {"stream": [of every read, the read-out last], "update": [of every sublayer], "entropy": [of
// every router, null for a read without one]}: root mean squares over channels and entropies in
// nats, means over the tokens of ids [B,T] on the model's device. "entropy" only where there are
// routers.
[[nodiscard]] nlohmann::ordered_json layer_sizes(Decoder& model, const at::Tensor& ids,
                                                 const Progress& progress);

}  // namespace wavroute
