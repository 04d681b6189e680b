#include "train/gradient_sum.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "model/sublayer.h"
#include "model/training_pass.h"
#include "ops/backend.h"

namespace wavroute {
namespace {

constexpr size_t kDecayed = 0;  // the group that the matrices lie in
constexpr size_t kNone = std::numeric_limits<size_t>::max();

// Where the matrices of a stored layer lie in their group; empty: it has none.
Share matrices_of(const Decoder& model, int64_t layer) {
  Share range{std::numeric_limits<int64_t>::max(), 0};
  for (const SublayerKind kind : {SublayerKind::kAttention, SublayerKind::kMlp}) {
    for (const Parameter* weight : model.sublayer({layer, kind, layer}).weights()) {
      if (weight == nullptr || weight->decay != Decay::kYes) continue;
      range.begin = std::min(range.begin, weight->offset);
      range.end = std::max(range.end, weight->offset + weight->count());
    }
  }
  return range.count() > 0 ? range : Share{};
}

}  // namespace

GradientSum::GradientSum(Decoder& model, Processes& processes, Optimizer optimizer,
                         int64_t least_bytes)
    : model_(model), processes_(processes), optimizer_(optimizer) {
  const std::vector<FlatGroup>& groups = model.parameters().groups();
  const int64_t layers = model.spec().model.layers;
  part_of_layer_.assign(static_cast<size_t>(layers) + 1, kNone);
  const auto bytes = static_cast<int64_t>(groups[kDecayed].grad.element_size());

  // Early parts, in the order that the backward ends them in: the head, then from the last layer.
  if (!model.spec().model.tie_embeddings) {
    const Parameter& head = model.head_weight();
    part_of_layer_.back() = parts_.size();
    parts_.push_back({kDecayed, {head.offset, head.offset + head.count()}});
    layers_.push_back(1);
  }
  bool is_open = false;
  for (int64_t layer = layers - 1; layer >= 0; --layer) {
    if (model.residual().stored_layer(layer) != layer) continue;
    const Share range = matrices_of(model, layer);
    if (range.count() == 0) continue;
    if (!is_open) {
      parts_.push_back({kDecayed, range});
      layers_.push_back(0);
    }
    Share& part = parts_.back().range;
    part = {std::min(part.begin, range.begin), std::max(part.end, range.end)};
    part_of_layer_[static_cast<size_t>(layer)] = parts_.size() - 1;
    ++layers_.back();
    is_open = part.count() * bytes < least_bytes;
  }

  // What is between them, and the group without decay.
  std::vector<Share> early;
  for (const FlatPart& part : parts_) early.push_back(part.range);
  std::ranges::sort(early, {}, &Share::begin);
  const auto add_late = [&](size_t group, Share range) {
    if (range.count() <= 0) return;
    parts_.push_back({group, range});
    layers_.push_back(0);
  };
  int64_t end = 0;
  for (const Share& range : early) {
    add_late(kDecayed, {end, range.begin});
    end = range.end;
  }
  add_late(kDecayed, {end, groups[kDecayed].grad.numel()});
  for (size_t g = kDecayed + 1; g < groups.size(); ++g) {
    add_late(g, {0, groups[g].grad.numel()});
  }
  waits_ = layers_;
  started_.assign(parts_.size(), false);

  if (!is_sharded()) {
    for (size_t g = 0; g < groups.size(); ++g) own_.push_back({g, {0, groups[g].grad.numel()}});
    return;
  }
  for (const FlatPart& part : parts_) {
    const Share share = share_of(part.range.count(), processes.rank(), processes.size());
    own_.push_back({part.group, {part.range.begin + share.begin, part.range.begin + share.end}});
  }
}

void GradientSum::start(size_t part) {
  started_[part] = true;
  const FlatPart& flat = parts_[part];
  const at::Tensor grad = flat.of(model_.parameters().groups()[flat.group].grad);
  if (is_sharded()) {
    processes_.start_sum_of_shares(grad);
  } else {
    processes_.start_sum(grad);
  }
}

void GradientSum::layer_is_final(int64_t layer) {
  const size_t part = layer == PassOptions::kHead ? part_of_layer_.back()
                                                  : part_of_layer_[static_cast<size_t>(layer)];
  if (part != kNone && --waits_[part] == 0) start(part);
}

void GradientSum::finish() {
  const at::NoGradGuard no_grad;
  for (size_t part = 0; part < parts_.size(); ++part) {
    if (!started_[part]) start(part);
  }
  processes_.finish();
  waits_ = layers_;
  started_.assign(parts_.size(), false);
}

double GradientSum::norm() const {
  double sum = 0.0;
  for (const FlatPart& part : own_) {
    if (part.range.count() == 0) continue;
    sum += model_.backend().sum_of_squares(part.of(model_.parameters().groups()[part.group].grad));
  }
  if (is_sharded()) processes_.sum({&sum, 1});
  // As in gradient_norm().
  if (sum > std::numeric_limits<float>::max()) return std::numeric_limits<double>::infinity();
  return std::sqrt(sum);
}

void GradientSum::gather_parameters() {
  const at::NoGradGuard no_grad;
  for (const FlatPart& part : parts_) {
    processes_.start_gather(part.of(model_.parameters().groups()[part.group].value));
  }
  processes_.finish();
  model_.parameters().refresh_compute();
}

void gather_shares(const GradientSum& sum, const std::vector<at::Tensor>& own,
                   const std::vector<at::Tensor>& whole) {
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < own.size(); ++i) {
    const FlatPart& mine = sum.own()[i];
    mine.of(whole[mine.group]).copy_(own[i]);
    const FlatPart& part = sum.parts()[i];
    sum.processes().start_gather(part.of(whole[part.group]));
    sum.processes().finish();
  }
}

}  // namespace wavroute
