// Which schemes are a Llama once their scales are put into the output projections: the additive
// ones with a norm before every sublayer, since h + s * (W y) = h + (diag(s) W) y.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "wavroute/residual.h"

namespace wavroute {

// What a sublayer's update is multiplied by in evaluation: a tensor of a checkpoint.
struct UpdateScale {
  std::string tensor;  // [1], [d] or [N, d]; empty: by one
  int64_t row = -1;    // of [N, d]
};

// By sublayer, attention of layer 0 first; nothing for a scheme that is no Llama. The scheme's
// parameters are declared.
[[nodiscard]] std::optional<std::vector<UpdateScale>> update_scales(const Residual& residual,
                                                                    int64_t layers);

}  // namespace wavroute
