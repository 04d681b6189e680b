// The parameters of a table as a list of tensors with names.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string>
#include <vector>

#include "wavroute/parameters.h"

namespace wavroute::python {

struct NamedValues {
  std::vector<std::string> names;  // in a checkpoint
  std::vector<bool> decay;         // whether weight decay applies
  std::vector<at::Tensor> values;  // tensors of their own
};

inline NamedValues values_of(const ParameterTable& table) {
  NamedValues result;
  for (const Parameter& parameter : table.parameters()) {
    for (const ParameterSlice& slice : parameter.slices) {
      result.names.push_back(slice.name);
      result.decay.push_back(parameter.decay == Decay::kYes);
      result.values.push_back(parameter.rows(slice, parameter.value.detach()).clone());
    }
  }
  return result;
}

}  // namespace wavroute::python
