#include "inspect/inspection.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "inspect/depth_mixing.h"
#include "inspect/layer_pass.h"

namespace wavroute {
namespace {

constexpr int64_t kGateBins = 101;  // hundredths, 1 included

struct Window {
  at::Tensor inputs, targets;  // [rows, T]
};

Window window_of(const EvalWindows& windows, int64_t begin, int64_t end) {
  Window window;
  window.inputs = at::empty({end - begin, windows.context()}, at::kLong);
  window.targets = at::empty_like(window.inputs);
  const auto ids = [](const at::Tensor& tensor) {
    return std::span(tensor.mutable_data_ptr<int64_t>(), static_cast<size_t>(tensor.numel()));
  };
  windows.fill(begin, end, ids(window.inputs), ids(window.targets));
  return window;
}

at::Tensor per_token(const at::Tensor& value) { return value.flatten().to(at::kDouble).cpu(); }

at::Tensor size_of(const at::Tensor& rows) {
  return per_token(rows.to(at::kFloat).square().mean(-1).sqrt());
}

// Adds the tokens of one window to an Inspection.
class WindowSums {
 public:
  WindowSums(Inspection& sums, const Decoder& model, const InspectionOptions& options,
             LayerPass& pass, const Window& window, const TokenGroups& groups)
      : sums_(sums),
        model_(model),
        options_(options),
        pass_(pass),
        targets_(window.targets),
        members_(groups.membership(window.inputs, window.targets.ne(EvalWindows::kIgnored))),
        counted_(members_.select(1, 0)) {}

  void add() {
    sums_.counts.add_(members_.sum(0));
    add_mixing();
    for (size_t reader = 0; reader < pass_.reads.size(); ++reader) add_reader(reader);
    if (pass_.depth.defined()) add_depth();
  }

 private:
  // Of one reader, over the channels: sum of |M|, and of |M| times the sublayers since the write.
  struct Ages {
    at::Tensor weight, age;  // [B T] or [1]
  };

  void add_mixing() {
    ages_.resize(pass_.reads.size());
    const double tokens = counted_.sum().item<double>();
    mix_depths(model_, options_.program, options_.progress, pass_,
               [&](int64_t reader, int64_t first, const at::Tensor& weights) {
                 const int64_t columns = weights.size(0);
                 const at::Tensor mean = weights.mean(-1).flatten(1).to(at::kDouble).cpu();
                 sums_.mixing[reader]
                     .narrow(0, first, columns)
                     .add_(mean.size(1) == 1 ? mean.select(1, 0) * tokens : at::mv(mean, counted_));
                 add_ages(ages_[static_cast<size_t>(reader)], reader, first, weights);
               });
  }

  static void add_ages(Ages& ages, int64_t reader, int64_t first, const at::Tensor& weights) {
    const at::Tensor size = weights.abs().mean(-1).flatten(1).to(at::kDouble).cpu();
    const at::Tensor since =
        at::arange(reader - first, reader - first - size.size(0), -1, at::kDouble).unsqueeze(1);
    const at::Tensor weight = size.sum(0), age = (size * since).sum(0);
    ages.weight = ages.weight.defined() ? ages.weight + weight : weight;
    ages.age = ages.age.defined() ? ages.age + age : age;
  }

  void add_reader(size_t reader) {
    ReaderSums& sums = sums_.readers[reader];
    const ReaderTaps& taps = pass_.taps[reader];
    const bool is_sublayer = reader < pass_.updates.size();
    const auto tokens = counted_.numel();
    const at::Tensor none = at::zeros({tokens}, at::kDouble);
    std::vector<at::Tensor> rows(kFeatures, none);
    const at::Tensor& h = pass_.reads[reader];
    rows[kLoss] = per_token(losses_after(model_, h, targets_.to(h.device())));
    rows[kStream] = size_of(h);
    if (is_sublayer) {
      rows[kUpdate] = size_of(pass_.updates[reader]);
      rows[kGradient] = size_of(pass_.gradients[reader]);
      rows[kCosine] =
          per_token(at::cosine_similarity(h, pass_.reads[reader + 1], -1, /*eps=*/1e-12));
    }
    const Ages& ages = ages_[reader];
    rows[kAge] = at::where(ages.weight > 0.0, ages.age / ages.weight, at::zeros_like(ages.age))
                     .expand({tokens});
    if (taps.gate.defined()) {
      rows[kGate] = per_token(taps.gate.mean(-1));
      add_gates(sums, taps.gate);
    }
    at::Tensor features = at::stack(rows);
    if (taps.weights.defined()) {
      sums.sources = taps.sources;
      const at::Tensor weights = taps.weights.flatten(1).to(at::kDouble).cpu();
      features[kEntropy].copy_(-at::xlogy(weights, weights).sum(0));
      const at::Tensor top = at::one_hot(weights.argmax(0), weights.size(0)).t().to(at::kDouble);
      features = at::cat({features, weights, top});
    }
    const at::Tensor by_group = at::mm(features, members_);
    sums.sums = sums.sums.defined() ? sums.sums + by_group : by_group;
  }

  void add_gates(ReaderSums& sums, const at::Tensor& gate) const {
    const at::Tensor counted = counted_.to(at::kBool);
    const at::Tensor values = gate.flatten(0, 1).cpu().index({counted}).flatten();
    const at::Tensor bins =
        (values.to(at::kDouble) * (kGateBins - 1)).round().clamp(0, kGateBins - 1).to(at::kLong);
    const at::Tensor counts = at::bincount(bins, {}, kGateBins);
    if (sums.gate_counts.empty()) sums.gate_counts.assign(kGateBins, 0);
    for (int64_t i = 0; i < kGateBins; ++i) {
      sums.gate_counts[static_cast<size_t>(i)] += counts.const_data_ptr<int64_t>()[i];
    }
  }

  void add_depth() {
    const at::Tensor depth = per_token(pass_.depth);
    const at::Tensor sum = at::mv(members_.t(), depth);
    sums_.depth = sums_.depth.defined() ? sums_.depth + sum : sum;
    sums_.depths.resize(static_cast<size_t>(model_.spec().model.layers) + 1);
    for (int64_t i = 0; i < depth.numel(); ++i) {
      if (counted_[i].item<double>() == 0.0) continue;
      ++sums_.depths[static_cast<size_t>(std::lround(depth.const_data_ptr<double>()[i]))];
    }
  }

  Inspection& sums_;
  const Decoder& model_;
  const InspectionOptions& options_;
  LayerPass& pass_;
  at::Tensor targets_;
  at::Tensor members_;  // [tokens, groups]
  at::Tensor counted_;  // [tokens] 1 or 0
  std::vector<Ages> ages_;
};

}  // namespace

void Inspection::add(const Inspection& other) {
  counts = counts + other.counts;
  mixing = mixing + other.mixing;
  if (other.depth.defined()) depth = depth.defined() ? depth + other.depth : other.depth;
  depths.resize(std::max(depths.size(), other.depths.size()));
  for (size_t i = 0; i < other.depths.size(); ++i) depths[i] += other.depths[i];
  for (size_t i = 0; i < readers.size(); ++i) {
    readers[i].sums = readers[i].sums + other.readers[i].sums;
    for (size_t bin = 0; bin < readers[i].gate_counts.size(); ++bin) {
      readers[i].gate_counts[bin] += other.readers[i].gate_counts[bin];
    }
  }
}

void count_ids(const EvalWindows& windows, std::vector<int64_t>& counts) {
  for (int64_t i = 0; i < windows.count(); ++i) {
    const Window window = window_of(windows, i, i + 1);
    for (int64_t t = 0; t < windows.context(); ++t) {
      if (window.targets.const_data_ptr<int64_t>()[t] == EvalWindows::kIgnored) continue;
      ++counts.at(static_cast<size_t>(window.inputs.const_data_ptr<int64_t>()[t]));
    }
  }
}

Inspection inspect(Decoder& model, const EvalWindows& windows, const TokenGroups& groups,
                   const InspectionOptions& options) {
  const at::NoGradGuard no_grad;
  Inspection sums;
  sums.groups = groups.groups();
  sums.sites = sites_of(model, options.program);
  const auto readers = static_cast<int64_t>(sums.sites.size()) + 1;
  sums.readers.resize(static_cast<size_t>(readers));
  sums.counts = at::zeros({static_cast<int64_t>(sums.groups.size())}, at::kDouble);
  sums.mixing = at::zeros({readers, readers}, at::kDouble);
  for (int64_t i = 0; i < windows.count(); ++i) {
    const Window window = window_of(windows, i, i + 1);
    LayerPass pass =
        run_layers(model, window.inputs.to(model.device()),
                   {options.program, options.progress, window.targets.to(model.device())});
    WindowSums(sums, model, options, pass, window, groups).add();
  }
  return sums;
}

double mean_loss(const Decoder& model, const EvalWindows& windows,
                 const InspectionOptions& options) {
  const at::NoGradGuard no_grad;
  constexpr int64_t kRows = 8;
  double sum = 0.0;
  for (int64_t begin = 0; begin < windows.count(); begin += kRows) {
    const Window window = window_of(windows, begin, std::min(begin + kRows, windows.count()));
    const ForwardResult out = model.forward(window.inputs.to(model.device()),
                                            {options.progress, options.program, nullptr, nullptr});
    sum += at::cross_entropy_loss(out.logits.flatten(0, 1),
                                  window.targets.flatten().to(model.device()), {},
                                  at::Reduction::Sum, EvalWindows::kIgnored)
               .item<double>();
  }
  return sum / static_cast<double>(windows.scored_tokens());
}

}  // namespace wavroute
