// Token ids are checked before they index memory.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace wavroute::ops {

inline constexpr int64_t kUnscored = -100;  // a target that is no token

// Throws UserError where `ids`, int64 on the CPU, hold one that is not of 0 .. vocabulary - 1; with
// `targets`, kUnscored is one too.
void check_ids(const at::Tensor& ids, int64_t vocabulary, bool targets = false);

}  // namespace wavroute::ops
