#include "model/training_pass.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include "model/sublayer.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

constexpr int64_t kUnscored = -100;

// One executed sublayer with its graph.
struct Activation {
  at::Tensor input;   // h, a leaf
  at::Tensor output;  // u
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
        const at::Tensor h = stream_->read(sites_[i]);
        stream_->write(sites_[i], model_.sublayer(sites_[i]).forward(h, {}));
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

  // Forward of sites [begin, end) with graphs.
  void run(size_t begin, size_t end) {
    const at::AutoGradMode with_grad(true);
    for (size_t i = begin; i < end; ++i) {
      Activation activation;
      activation.input = stream_->read(sites_[i]).detach().set_requires_grad(true);
      activation.output = model_.sublayer(sites_[i]).forward(activation.input, {});
      stream_->write(sites_[i], activation.output.detach());
      activations_.push_back(std::move(activation));
    }
  }

  void backward_of(const Site& site) {
    const at::Tensor grad = stream_->write_backward(site);
    at::Tensor input_grad;
    {
      Activation activation = std::move(activations_.back());
      activations_.pop_back();
      torch::autograd::backward({activation.output}, {grad.to(activation.output.scalar_type())});
      input_grad = activation.input.grad();
    }
    model_.parameters().fold(model_.sublayer(site).parameters());
    stream_->read_backward(site, input_grad);
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

PassResult training_pass(Decoder& model, const at::Tensor& ids, const at::Tensor& targets,
                         const PassOptions& options) {
  const at::NoGradGuard no_grad;
  Driver driver(model, options);
  Stream& stream = driver.stream();
  stream.begin(model.embed(ids));
  driver.forward();

  PassResult result;
  at::Tensor read_out = stream.read_out().detach();
  {
    const at::AutoGradMode with_grad(true);
    read_out.set_requires_grad(true);
    const at::Tensor logits = model.head(read_out).to(storage_type(model.precision()));
    const at::Tensor loss = at::cross_entropy_loss(logits.flatten(0, 1), targets.flatten(), {},
                                                   at::Reduction::Sum, kUnscored);
    if (options.logits != nullptr) *options.logits = logits.detach();
    torch::autograd::backward({loss}, {at::full_like(loss, options.loss_weight)});
    result.loss_sum = loss.item<double>();
  }
  model.parameters().fold(model.head_parameters());
  if (const at::Tensor value = stream.auxiliary_loss(); value.defined()) {
    result.auxiliary = value.item<double>();
  }
  if (const at::Tensor value = stream.mean_depth(); value.defined()) {
    result.mean_depth = value.item<double>();
  }
  const at::Tensor read_out_grad = read_out.grad();
  read_out.reset();
  stream.read_out_backward(read_out_grad, options.auxiliary_weight);
  driver.backward();
  const at::Tensor grad = stream.begin_backward();
  Parameter& embedding = model.embedding();
  embedding.value.mutable_grad().add_(at::embedding_dense_backward(
      grad, ids, embedding.value.size(0), /*padding_idx=*/-1, /*scale_grad_by_freq=*/false));
  return result;
}

}  // namespace wavroute
