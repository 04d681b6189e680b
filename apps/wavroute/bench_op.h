// `wavroute bench peak` and `wavroute bench op`.
#pragma once

#include "command.h"

namespace wavroute::app {

void add_bench_peak(CLI::App& bench, Action& action);
void add_bench_op(CLI::App& bench, Action& action);

}  // namespace wavroute::app
