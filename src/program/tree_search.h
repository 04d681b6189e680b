// Monte-Carlo tree search over layer programs whose layers stay in order: each is left out, run
// once or run again. After PoLar (arXiv 2606.06574), which searches paths of skipped and repeated
// layers so; selection, priors and prices as below are ours.
//
// A node is a program, an edge changes how often one or some layers run. Nodes are chosen by UCB1
// (Auer et al. 2002) on their value, minus the mean loss under a node plus a price for each layer
// that its programs save; every iteration draws a price, so that programs of every length are
// searched for. New edges take the changes that have helped most wherever they were tried ("all
// moves as first", Gelly and Silver 2007).
#pragma once

#include <cstdint>

#include "program/trials.h"

namespace wavroute {

struct TreeSearch {
  int64_t layers = 0;        // of the model
  int64_t most_repeats = 2;  // times that a layer runs, at most
  int64_t longest = 0;  // executed layers of a program, at most; 0: a quarter more than `layers`
  uint64_t seed = 1;
};

// Tries the whole model, single changes for a third of the budget, then what the tree proposes,
// until the budget is spent or nothing new comes up.
void search_tree(const TreeSearch& search, Trials& trials);

}  // namespace wavroute
