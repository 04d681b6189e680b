#include "model/training_pass.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <array>
#include <utility>

#include "model/sublayer.h"
#include "ops/arena.h"
#include "ops/cross_entropy.h"
#include "ops/flat.h"
#include "ops/products.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

// What the backward of one executed sublayer needs: a graph, or what our kernels keep.
struct Activation {
  at::Tensor input;   // x, a leaf
  at::Tensor output;  // u
  Sublayer::Kept kept;
};

class Driver {
 public:
  Driver(Decoder& model, const PassOptions& pass_options)
      : model_(model), recompute_(pass_options.recompute) {
    for (const int64_t layer : pass_options.program != nullptr
                                   ? pass_options.program->layers()
                                   : executed_layers(model, pass_options.pass)) {
      const auto visit = static_cast<int64_t>(sites_.size() / 2);
      sites_.push_back({layer, SublayerKind::kAttention, visit});
      sites_.push_back({layer, SublayerKind::kMlp, visit});
    }
    StreamOptions options;
    options.pass = pass_options.pass;
    options.record = recompute_ == Recompute::kNone;
    const bool plain = pass_options.program == nullptr || pass_options.program->is_plain();
    if (model.fused() && plain) options.arena = &model.arena();
    stream_ = model.residual().open(options);
    cut_segments();
  }

  Stream& stream() { return *stream_; }

  void forward() {
    for (size_t s = 0; s + 1 < cuts_.size(); ++s) {
      if (recompute_ == Recompute::kNone) {
        run(cuts_[s], cuts_[s + 1]);
        continue;
      }
      snapshots_.push_back(stream_->snapshot());
      const at::NoGradGuard no_grad;
      for (size_t i = cuts_[s]; i < cuts_[s + 1]; ++i) {
        const Sublayer& f = model_.sublayer(sites_[i]);
        const at::Tensor x = stream_->read_normed(sites_[i], f.norm());
        stream_->write(sites_[i],
                       model_.fused() ? f.run(x, model_.arena(), nullptr) : f.forward(x, {}));
      }
    }
  }

  void backward() {
    for (size_t s = cuts_.size() - 1; s-- > 0;) {
      if (recompute_ != Recompute::kNone) {
        stream_->restore(snapshots_.back());
        snapshots_.pop_back();
        stream_->set_record(true);
        run(cuts_[s], cuts_[s + 1]);
      }
      for (size_t i = cuts_[s + 1]; i-- > cuts_[s];) backward_of(sites_[i]);
    }
  }

 private:
  // Sublayers [cuts_[s], cuts_[s+1]) are kept or recomputed together.
  void cut_segments() {
    cuts_ = {0};
    const int64_t block = model_.residual().block_length();
    for (size_t i = 1; i < sites_.size(); ++i) {
      const bool new_layer = sites_[i].visit != sites_[i - 1].visit;
      const bool new_block = sites_[i].index() / block != sites_[i - 1].index() / block;
      if ((recompute_ == Recompute::kLayer && new_layer) ||
          (recompute_ == Recompute::kBlock && new_block)) {
        cuts_.push_back(i);
      }
    }
    if (!sites_.empty()) cuts_.push_back(sites_.size());
  }

  // Forward of sites [begin, end), keeping what their backward needs.
  void run(size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      const Sublayer& f = model_.sublayer(sites_[i]);
      Activation& activation = activations_.emplace_back();
      const at::Tensor x = stream_->read_normed(sites_[i], f.norm());
      if (model_.fused()) {
        stream_->write(sites_[i], f.run(x, model_.arena(), &activation.kept));
        continue;
      }
      const at::AutoGradMode with_grad(true);
      activation.input = x.detach().set_requires_grad(true);
      activation.output = f.forward(activation.input, {});
      stream_->write(sites_[i], activation.output.detach());
    }
  }

  void backward_of(const Site& site) {
    const Sublayer& f = model_.sublayer(site);
    const at::Tensor du = stream_->write_backward(site);
    Activation activation = std::move(activations_.back());
    activations_.pop_back();
    if (model_.fused()) {
      const at::Tensor dx = f.run_backward(du, model_.arena(), std::move(activation.kept));
      stream_->read_normed_backward(site, f.norm(), dx);
      return;
    }
    torch::autograd::backward({activation.output}, {du.to(activation.output.scalar_type())});
    const at::Tensor dx = activation.input.grad();
    activation = {};
    model_.parameters().fold(f.weights());
    stream_->read_normed_backward(site, f.norm(), dx);
  }

  Decoder& model_;
  Recompute recompute_;
  std::vector<Site> sites_;
  std::vector<size_t> cuts_;
  std::unique_ptr<Stream> stream_;
  std::vector<StreamSnapshot> snapshots_;
  std::vector<Activation> activations_;
};

}  // namespace

Recompute parse_recompute(const std::string& name) {
  if (name == "none") return Recompute::kNone;
  if (name == "block") return Recompute::kBlock;
  if (name == "layer") return Recompute::kLayer;
  throw UserError(
      fmt::format("train.recompute: none, block or layer was expected, '{}' was given", name));
}

std::vector<int64_t> executed_layers(const Decoder& model, const Pass& pass) {
  std::vector<int64_t> layers;
  for (int64_t layer = 0; layer < model.spec().model.layers; ++layer) {
    if (model.residual().runs_layer(layer, pass)) layers.push_back(layer);
  }
  return layers;
}

namespace {

struct HeadResult {
  double loss_sum = 0.0;
  at::Tensor grad;  // of x, [B,T,d]
};

// Cross-entropy of x [B,T,d] after the final norm, and its gradients.
HeadResult head_pass(Decoder& model, const at::Tensor& x, const at::Tensor& targets,
                     const PassOptions& options) {
  const at::AutoGradMode with_grad(true);
  if (targets.is_cpu()) ops::check_ids(targets, model.spec().vocab_size, /*targets=*/true);
  const at::Tensor leaf = x.detach().set_requires_grad(true);
  const at::Tensor logits = model.head(leaf).to(storage_type(model.precision()));
  const at::Tensor loss = at::cross_entropy_loss(logits.flatten(0, 1), targets.flatten(), {},
                                                 at::Reduction::Sum, ops::kUnscored);
  if (options.logits != nullptr) *options.logits = logits.detach();
  torch::autograd::backward({loss}, {at::full_like(loss, options.loss_weight)});
  model.parameters().fold(std::array{&model.head_weight()});
  return {loss.item<double>(), leaf.grad()};
}

// The same on our kernels.
HeadResult fused_head_pass(Decoder& model, const at::Tensor& x, const at::Tensor& targets,
                           const PassOptions& options) {
  ops::Arena& arena = model.arena();
  Parameter& weight = model.head_weight();
  const at::Tensor rows = x.flatten(0, 1);
  const at::Tensor logits = ops::project(arena, rows, weight.compute);
  if (options.logits != nullptr) {
    *options.logits = logits.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true)
                          .view({x.size(0), x.size(1), logits.size(1)});
  }
  const double loss =
      ops::cross_entropy(arena, logits, targets.contiguous().flatten(), options.loss_weight);
  ops::add_weight_grad(arena, logits, rows, weight.value.mutable_grad());
  return {loss, ops::project_backward(arena, logits, weight.compute).view(x.sizes())};
}

void add_embedding_grad(Decoder& model, const at::Tensor& ids, const at::Tensor& grad) {
  Parameter& embedding = model.embedding();
  if (model.fused()) {
    ops::add_rows(ids.contiguous(), grad.contiguous(), embedding.value.mutable_grad());
    return;
  }
  embedding.value.mutable_grad().add_(at::embedding_dense_backward(
      grad, ids, embedding.value.size(0), /*padding_idx=*/-1, /*scale_grad_by_freq=*/false));
}

}  // namespace

PassResult training_pass(Decoder& model, const at::Tensor& ids, const at::Tensor& targets,
                         const PassOptions& options) {
  const at::NoGradGuard no_grad;
  model.arena().begin_pass();
  Driver driver(model, options);
  Stream& stream = driver.stream();
  stream.begin(model.embed(ids));
  driver.forward();

  PassResult result;
  const PreNorm norm = model.final_norm();
  stream.set_record(true);
  HeadResult head;
  {
    const at::Tensor x = stream.read_out_normed(norm);
    head = model.fused() ? fused_head_pass(model, x, targets, options)
                         : head_pass(model, x, targets, options);
  }
  result.loss_sum = head.loss_sum;
  if (const at::Tensor value = stream.auxiliary_loss(); value.defined()) {
    result.auxiliary = value.item<double>();
  }
  if (const at::Tensor value = stream.mean_depth(); value.defined()) {
    result.mean_depth = value.item<double>();
  }
  stream.read_out_normed_backward(norm, std::exchange(head.grad, {}), options.auxiliary_weight);
  driver.backward();
  add_embedding_grad(model, ids, stream.begin_backward());
  return result;
}

}  // namespace wavroute
