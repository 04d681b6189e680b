// Times operators: ours and the composed form in turn.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bench/op_table.h"
#include "opbench/operator.h"

namespace wavroute::opbench {

struct Plan {
  std::vector<int64_t> widths;  // multiples of 64
  std::vector<at::ScalarType> types;
  int64_t tokens = 1024;
  int warmup = 2;   // untimed runs of each form
  int rounds = 10;  // timed runs
};

// Throws Failure where the two forms of a case disagree by more than `type`, the compute type, can
// explain: the largest distance of a result from the composed one, relative to the size of that.
void check_agreement(const Case& what, at::ScalarType type);

// One result per case, in the order of the operators, widths and types; runs on the current
// number of threads. `progress` is called with each case before it is timed. Throws UserError for a
// width that is no multiple of 64.
[[nodiscard]] std::vector<OpResult> measure(
    std::span<const Operator* const> operators, const Plan& plan,
    const std::function<void(std::string_view)>& progress = {});

}  // namespace wavroute::opbench
