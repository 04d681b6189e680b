// Token ids are checked before they index memory.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace wavroute::ops {

inline constexpr int64_t kUnscored = -100;  // a target that is not a token

// Throws UserError if `ids`, int64 on the CPU, have one outside 0 .. vocabulary - 1; with
// `targets`, kUnscored is allowed too.
void check_ids(const at::Tensor& ids, int64_t vocabulary, bool targets = false);

}  // namespace wavroute::ops
