// `wavroute bench peak` and `wavroute bench op`.
#pragma once

#include <functional>

#include "command.h"

namespace wavroute::app {

// Both, whichever of them throws: a full disk takes nothing from the screen, nor the other way
// round.
void keep_and_show(const std::function<void()>& keep, const std::function<void()>& show);

void add_bench_peak(CLI::App& bench, Action& action);
void add_bench_op(CLI::App& bench, Action& action);

}  // namespace wavroute::app
