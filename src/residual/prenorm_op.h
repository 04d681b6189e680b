// The norm of a stream in the operators' form.
#pragma once

#include "ops/norm.h"
#include "wavroute/residual.h"

namespace wavroute {

[[nodiscard]] inline ops::Norm norm_of(const PreNorm& norm) {
  if (norm.gain == nullptr) return {};
  return {norm.gain->value, norm.eps, norm.gain->value.grad()};
}

}  // namespace wavroute
