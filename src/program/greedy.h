// Greedy removal of layers: the plain baseline of every search over layer programs.
#pragma once

#include "program/trials.h"

namespace wavroute {

// Tries the whole model, then removes one layer after the other: each time the one without which
// the loss is lowest, of all that are left. Ends when the budget is spent, in the middle of a round
// too, or one layer is left.
void remove_greedily(int64_t layers, Trials& trials);

}  // namespace wavroute
