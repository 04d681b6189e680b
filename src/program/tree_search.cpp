#include "program/tree_search.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <utility>

#include "base/philox.h"

namespace wavroute {
namespace {

constexpr double kExploration = 0.7;  // of UCB1, in units of the typical change of the loss
// Iterations that propose a program that is known already, in a row, until the search gives up.
constexpr int64_t kMostStale = 200;
constexpr int64_t kLargestStep = 4;  // changes of an edge

// How often each layer runs.
using Counts = std::vector<int64_t>;

Layers program_of(const Counts& counts) {
  Layers layers;
  for (size_t i = 0; i < counts.size(); ++i) {
    layers.insert(layers.end(), static_cast<size_t>(counts[i]), static_cast<int64_t>(i));
  }
  return layers;
}

struct Change {
  size_t layer = 0;
  int64_t by = -1;  // runs more
};

struct Node {
  Counts counts;
  double visits = 0.0, loss_sum = 0.0, saved_sum = 0.0;
  std::vector<std::unique_ptr<Node>> children;
};

// Mean changes of the loss, by layer, for one run less and one more.
class Priors {
 public:
  explicit Priors(size_t layers) : entries_(2 * layers) {}

  void note(const Change& change, double loss) {
    Entry& entry = at(change);
    entry.sum += loss;
    ++entry.count;
    sizes_ += std::abs(loss);
    ++notes_;
  }
  // Of a change that was never tried: the mean of all.
  [[nodiscard]] double of(const Change& change) const {
    const Entry& entry = entries_[index(change)];
    return entry.count > 0 ? entry.sum / entry.count : typical();
  }
  // The mean size of a change, in nats.
  [[nodiscard]] double typical() const { return notes_ > 0 ? sizes_ / notes_ : 0.05; }

 private:
  struct Entry {
    double sum = 0.0, count = 0.0;
  };
  [[nodiscard]] static size_t index(const Change& change) {
    return 2 * change.layer + (change.by > 0 ? 1 : 0);
  }
  Entry& at(const Change& change) { return entries_[index(change)]; }

  std::vector<Entry> entries_;
  double sizes_ = 0.0, notes_ = 0.0;
};

class Tree {
 public:
  Tree(const TreeSearch& search, Trials& trials)
      : search_(search),
        trials_(trials),
        longest_(search.longest > 0 ? search.longest : search.layers + (search.layers + 3) / 4),
        random_(search.seed, "program search"),
        priors_(static_cast<size_t>(search.layers)) {
    root_.counts.assign(static_cast<size_t>(search.layers), 1);
  }

  void run() {
    if (trials_.is_spent()) return;
    note_visit({&root_}, root_, trials_.loss_of(program_of(root_.counts)));
    try_single_changes();
    for (int64_t stale = 0; stale < kMostStale && !trials_.is_spent();) {
      stale = grow() ? 0 : stale + 1;
    }
  }

 private:
  [[nodiscard]] double draw() { return random_.uniform(draws_++); }
  [[nodiscard]] bool is_allowed(const Counts& counts) const {
    const int64_t length = std::accumulate(counts.begin(), counts.end(), int64_t{0});
    return length >= 1 && length <= longest_;
  }

  // The changes that `counts` allows, in an order of chance.
  [[nodiscard]] std::vector<Change> changes_of(const Counts& counts) {
    std::vector<std::pair<double, Change>> drawn;
    for (size_t layer = 0; layer < counts.size(); ++layer) {
      if (counts[layer] > 0) drawn.push_back({draw(), {layer, -1}});
      if (counts[layer] < search_.most_repeats) drawn.push_back({draw(), {layer, +1}});
    }
    std::ranges::sort(drawn, {}, &std::pair<double, Change>::first);
    std::vector<Change> changes;
    for (const auto& [order, change] : drawn) changes.push_back(change);
    return changes;
  }

  void note_visit(const std::vector<Node*>& path, const Node& leaf, double loss) {
    const double saved =
        static_cast<double>(search_.layers) -
        static_cast<double>(std::accumulate(leaf.counts.begin(), leaf.counts.end(), int64_t{0}));
    for (Node* node : path) {
      ++node->visits;
      node->loss_sum += loss;
      node->saved_sum += saved;
    }
  }

  // Adds a child of `parent`, which the changes make; false if its program was known.
  bool expand(std::vector<Node*> path, const std::vector<Change>& changes) {
    Node& parent = *path.back();
    auto child = std::make_unique<Node>();
    child->counts = parent.counts;
    for (const Change& change : changes) child->counts[change.layer] += change.by;
    const Layers program = program_of(child->counts);
    const bool is_new = !trials_.knows(program);
    const double before = trials_.loss_of(program_of(parent.counts));
    const double loss = trials_.loss_of(program);
    for (const Change& change : changes) {
      if (is_new) priors_.note(change, (loss - before) / static_cast<double>(changes.size()));
    }
    path.push_back(child.get());
    note_visit(path, *child, loss);
    parent.children.push_back(std::move(child));
    return is_new;
  }

  // A third of the budget at most: what each layer is worth by itself.
  void try_single_changes() {
    const auto spent = std::ssize(trials_.all());
    int64_t left = std::max<int64_t>(trials_.budget() / 3 - spent, 0);
    for (const int64_t by : {int64_t{-1}, int64_t{+1}}) {
      for (const Change& change : changes_of(root_.counts)) {
        if (change.by != by || left <= 0 || trials_.is_spent()) continue;
        Counts counts = root_.counts;
        counts[change.layer] += by;
        if (!is_allowed(counts)) continue;
        expand({&root_}, {change});
        --left;
      }
    }
  }

  // Of a node's programs, at a price in nats for each layer.
  [[nodiscard]] static double value(const Node& node, double price) {
    return (price * node.saved_sum - node.loss_sum) / node.visits;
  }

  [[nodiscard]] Node* best_child(const Node& node, double price) const {
    Node* best = nullptr;
    double most = 0.0;
    for (const auto& child : node.children) {
      const double bound =
          value(*child, price) +
          kExploration * priors_.typical() * std::sqrt(std::log(node.visits + 1.0) / child->visits);
      if (best == nullptr || bound > most) best = child.get(), most = bound;
    }
    return best;
  }

  // One iteration: from the root to a node that takes a new child. False if that brought nothing.
  bool grow() {
    // From a tenth of a typical change, where only free layers go, to three times it.
    const double price = priors_.typical() * 0.1 * std::pow(30.0, draw());
    std::vector<Node*> path = {&root_};
    // As many children as the root of the visits: deep where it pays, wide in the long run.
    while (static_cast<double>(path.back()->children.size()) >= std::sqrt(path.back()->visits)) {
      Node* next = best_child(*path.back(), price);
      if (next == nullptr) break;
      path.push_back(next);
    }
    const std::vector<Change> changes = proposal(path.back()->counts, price);
    return !changes.empty() && expand(std::move(path), changes);
  }

  // The changes that promise most at this price, one to kLargestStep of them, leaving some out by
  // chance; empty if every draw is known or not allowed.
  [[nodiscard]] std::vector<Change> proposal(const Counts& counts, double price) {
    std::vector<Change> ranked = changes_of(counts);
    std::ranges::stable_sort(ranked, std::greater<>(), [&](const Change& change) {
      return -priors_.of(change) - price * static_cast<double>(change.by);
    });
    for (int attempt = 0; attempt < 8; ++attempt) {
      const auto size = int64_t{1}
                        << static_cast<int64_t>(draw() * (std::log2(kLargestStep) + 1.0));
      std::vector<Change> chosen;
      Counts changed = counts;
      for (const Change& change : ranked) {
        if (std::ssize(chosen) == size) break;
        if (draw() < 0.3 || changed[change.layer] != counts[change.layer]) continue;
        changed[change.layer] += change.by;
        chosen.push_back(change);
      }
      if (!chosen.empty() && is_allowed(changed) && !trials_.knows(program_of(changed))) {
        return chosen;
      }
    }
    return {};
  }

  const TreeSearch search_;
  Trials& trials_;
  int64_t longest_;
  Philox random_;
  uint64_t draws_ = 0;
  Priors priors_;
  Node root_;
};

}  // namespace

void search_tree(const TreeSearch& search, Trials& trials) { Tree(search, trials).run(); }

}  // namespace wavroute
