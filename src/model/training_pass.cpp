#include "model/training_pass.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <set>
#include <utility>

#include "model/sublayer.h"
#include "ops/backend.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

class Driver {
 public:
  Driver(Decoder& model, const PassOptions& pass_options)
      : model_(model),
        recompute_(pass_options.recompute),
        on_final_(pass_options.on_final),
        backend_(model.backend_for(
            {.program = pass_options.program != nullptr && !pass_options.program->is_plain()})) {
    for (const int64_t layer : pass_options.program != nullptr
                                   ? pass_options.program->layers()
                                   : executed_layers(model, pass_options.pass)) {
      const auto visit = static_cast<int64_t>(sites_.size() / 2);
      sites_.push_back({layer, SublayerKind::kAttention, visit});
      sites_.push_back({layer, SublayerKind::kMlp, visit});
    }
    backend_.begin_pass();
    StreamOptions options;
    options.backend = &backend_;
    options.pass = pass_options.pass;
    options.record = recompute_ == Recompute::kNone;
    stream_ = model.residual().open(options);
    cut_segments();
    if (on_final_) find_last_uses();
  }

  Stream& stream() { return *stream_; }
  ops::Backend& backend() { return backend_; }

  void forward() {
    for (size_t s = 0; s + 1 < cuts_.size(); ++s) {
      const bool keeps = recompute_ == Recompute::kNone;
      if (!keeps) snapshots_.push_back(stream_->snapshot());
      run(cuts_[s], cuts_[s + 1], keeps);
    }
  }

  void backward() {
    for (size_t s = cuts_.size() - 1; s-- > 0;) {
      if (recompute_ != Recompute::kNone) {
        stream_->restore(snapshots_.back());
        snapshots_.pop_back();
        stream_->set_record(true);
        run(cuts_[s], cuts_[s + 1], /*keeps=*/true);
      }
      for (size_t i = cuts_[s + 1]; i-- > cuts_[s];) {
        Sublayer::Kept kept = std::move(kept_.back());
        kept_.pop_back();
        take_sublayer_backward(*stream_, sites_[i], model_.sublayer(sites_[i]), backend_,
                               std::move(kept));
        if (on_final_ && is_last_use_[i]) on_final_(stored_layer(i));
      }
    }
  }

 private:
  [[nodiscard]] int64_t stored_layer(size_t i) const {
    return model_.residual().stored_layer(sites_[i].layer);
  }

  // Of a stored layer that runs several times, the backward is done with its first sublayer of the
  // first time.
  void find_last_uses() {
    std::set<int64_t> seen;
    for (size_t i = 0; i < sites_.size(); ++i) {
      is_last_use_.push_back(seen.insert(stored_layer(i)).second);
    }
  }

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

  // Forward of sites [begin, end), with what their backward needs where it `keeps`.
  void run(size_t begin, size_t end, bool keeps) {
    for (size_t i = begin; i < end; ++i) {
      take_sublayer(*stream_, sites_[i], model_.sublayer(sites_[i]), backend_, /*state=*/nullptr,
                    keeps ? &kept_.emplace_back() : nullptr);
    }
  }

  Decoder& model_;
  Recompute recompute_;
  const std::function<void(int64_t)>& on_final_;
  ops::Backend& backend_;
  std::vector<Site> sites_;
  std::vector<bool> is_last_use_;  // by site
  std::vector<size_t> cuts_;
  std::unique_ptr<Stream> stream_;
  std::vector<StreamSnapshot> snapshots_;
  std::vector<Sublayer::Kept> kept_;
};

}  // namespace

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
HeadResult head_pass(Decoder& model, ops::Backend& backend, const at::Tensor& x,
                     const at::Tensor& targets, const PassOptions& options) {
  Parameter& weight = model.head_weight();
  const at::Tensor rows = x.flatten(0, 1);
  const at::Tensor logits = backend.project(rows, weight.compute);
  if (options.logits != nullptr) {
    *options.logits =
        logits.to(storage_type(model.precision()), /*non_blocking=*/false, /*copy=*/true)
            .view({x.size(0), x.size(1), logits.size(1)});
  }
  // The logits become their gradient.
  double loss = 0.0;
  if (options.sums.defined()) {
    backend.steps()->cross_entropy(logits, targets.flatten(), options.loss_weight, options.sums[0]);
  } else {
    loss = backend.cross_entropy(logits, targets.flatten(), options.loss_weight);
  }
  backend.add_weight_grad(logits, rows, weight.value.mutable_grad());
  if (options.on_final) options.on_final(PassOptions::kHead);
  return {loss, backend.project_backward(logits, weight.compute).view(x.sizes())};
}

}  // namespace

PassResult training_pass(Decoder& model, const at::Tensor& ids, const at::Tensor& targets,
                         const PassOptions& options) {
  const at::NoGradGuard no_grad;
  Driver driver(model, options);
  Stream& stream = driver.stream();
  ops::Backend& backend = driver.backend();
  Parameter& embedding = model.embedding();
  stream.begin(backend.embed(embedding.value, ids));
  driver.forward();

  PassResult result;
  const PreNorm norm = model.final_norm();
  stream.set_record(true);
  HeadResult head;
  {
    const at::Tensor x = stream.read_out_normed(norm);
    head = head_pass(model, backend, x, targets, options);
  }
  result.loss_sum = head.loss_sum;
  const auto take = [&](const at::Tensor& value, int64_t place, double& number) {
    if (!value.defined()) return;
    if (options.sums.defined()) {
      options.sums[place].add_(value.detach(), options.auxiliary_weight);
    } else {
      number = value.item<double>();
    }
  };
  take(stream.auxiliary_loss(), 1, result.auxiliary);
  take(stream.mean_depth(), 2, result.mean_depth);
  stream.read_out_normed_backward(norm, std::exchange(head.grad, {}), options.auxiliary_weight);
  driver.backward();
  backend.add_rows(ids, stream.begin_backward(), embedding.value.mutable_grad());
  return result;
}

}  // namespace wavroute
