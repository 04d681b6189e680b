#include "inspect/layer_pass.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <map>
#include <memory>
#include <utility>

#include "model/sublayer.h"
#include "ops/backend.h"
#include "residual/prenorm_op.h"

namespace wavroute {
namespace {

constexpr int64_t kUnscored = -100;

// Puts what it is told beside the reader whose turn it is.
class LayerTaps final : public Taps {
 public:
  explicit LayerTaps(LayerPass& pass) : pass_(pass) {}
  void begin_reader() { pass_.taps.emplace_back(); }

  void on_weights(const std::optional<Site>&, std::span<const SourceLabel> sources,
                  const at::Tensor& weights) override {
    pass_.taps.back().sources.assign(sources.begin(), sources.end());
    pass_.taps.back().weights = weights;
  }
  void on_gate(const Site&, const at::Tensor& alpha) override { pass_.taps.back().gate = alpha; }
  void on_depth(const at::Tensor& depth) override { pass_.depth = depth; }

 private:
  LayerPass& pass_;
};

class Runner {
 public:
  Runner(Decoder& model, const LayerPassOptions& options)
      : model_(model),
        options_(options),
        sites_(sites_of(model, options.program)),
        backend_(model.backend_for(
            {.program = options.program != nullptr && !options.program->is_plain(), .taps = true})),
        taps_(pass_) {
    StreamOptions stream;
    stream.backend = &backend_;
    stream.pass.progress = options.progress;
    stream.record = options.targets.defined();
    if (options.program != nullptr) stream.order = options.program->order();
    stream.taps = &taps_;
    stream.coefficients = &pass_.coefficients;
    backend_.begin_pass();
    stream_ = model.residual().open(stream);
  }

  LayerPass run(const at::Tensor& ids) {
    stream_->begin(backend_.embed(model_.embedding().value, ids));
    for (const Site& site : sites_) take(site);
    taps_.begin_reader();
    pass_.reads.push_back(stream_->read_out());
    pass_.coefficients.set(Coefficients::Phase::kPass);  // the twins compute them again
    if (options_.targets.defined()) backward();
    return std::move(pass_);
  }

 private:
  struct Kept {
    ops::Normed normed;
    Sublayer::Kept sublayer;
  };

  // The norm is taken apart from the read, which is kept.
  void take(const Site& site) {
    taps_.begin_reader();
    const Sublayer& f = model_.sublayer(site);
    const at::Tensor h = stream_->read(site);
    Kept kept{backend_.add_norm(h, {}, norm_of(f.norm()), f.norm().type), {}};
    const at::Tensor x = std::exchange(kept.normed.x, {});
    // All tokens run: where some have halted, the stream leaves their updates out itself.
    const at::Tensor u =
        f.run(x, backend_, stream_records() ? &kept.sublayer : nullptr, {nullptr, site.visit, {}});
    stream_->write(site, u);
    pass_.reads.push_back(h);
    pass_.updates.push_back(u);
    if (stream_records()) kept_.push_back(std::move(kept));
  }

  [[nodiscard]] bool stream_records() const { return options_.targets.defined(); }

  at::Tensor norm_backward(const PreNorm& norm, const ops::Normed& normed, const at::Tensor& dx) {
    at::Tensor dh = at::empty_like(normed.h);
    (void)backend_.add_norm_backward(dx, normed, norm_of(norm), {}, dh, /*first=*/true);
    return dh;
  }

  at::Tensor read_out_grad() {
    const PreNorm norm = model_.final_norm();
    const ops::Normed normed = backend_.add_norm(pass_.reads.back(), {}, norm_of(norm), norm.type);
    const at::Tensor& head = model_.head_weight().compute;
    const at::Tensor logits = backend_.project(normed.x.flatten(0, 1), head);
    // The logits become their gradient.
    (void)backend_.cross_entropy(logits, options_.targets.flatten(), /*weight=*/1.0);
    const at::Tensor dx = backend_.project_backward(logits, head).view(normed.h.sizes());
    return norm_backward(norm, normed, dx);
  }

  void backward() {
    stream_->read_out_backward(read_out_grad(), /*auxiliary_grad=*/0.0);
    pass_.gradients.resize(sites_.size());
    for (size_t i = sites_.size(); i-- > 0;) {
      const Sublayer& f = model_.sublayer(sites_[i]);
      Kept kept = std::move(kept_.back());
      kept_.pop_back();
      const at::Tensor du = stream_->write_backward(sites_[i]);
      pass_.gradients[i] = du.clone();  // the stream may go on to use its memory
      const at::Tensor dx = f.run_backward(du, backend_, std::move(kept.sublayer));
      stream_->read_backward(sites_[i], norm_backward(f.norm(), kept.normed, dx));
    }
  }

  Decoder& model_;
  const LayerPassOptions& options_;
  std::vector<Site> sites_;
  ops::Backend& backend_;
  LayerPass pass_;
  LayerTaps taps_;
  std::unique_ptr<Stream> stream_;
  std::vector<Kept> kept_;
};

}  // namespace

std::vector<Site> sites_of(const Decoder& model, const LayerProgram* program) {
  const LayerProgram plain(model.spec().model.layers);
  std::vector<Site> sites;
  for (const int64_t layer : (program != nullptr ? *program : plain).layers()) {
    const auto visit = static_cast<int64_t>(sites.size() / 2);
    sites.push_back({layer, SublayerKind::kAttention, visit});
    sites.push_back({layer, SublayerKind::kMlp, visit});
  }
  return sites;
}

std::vector<std::string> names_of(const std::vector<Site>& sites) {
  std::vector<std::string> names;
  std::map<int64_t, int> runs;
  for (const Site& site : sites) {
    const int run = ++runs[site.index()];
    const char* kind = site.kind == SublayerKind::kMlp ? "mlp" : "attention";
    names.push_back(run == 1 ? fmt::format("{} {}", kind, site.layer)
                             : fmt::format("{} {} ({})", kind, site.layer, run));
  }
  return names;
}

LayerPass run_layers(Decoder& model, const at::Tensor& ids, const LayerPassOptions& options) {
  const at::NoGradGuard no_grad;
  return Runner(model, options).run(ids);
}

at::Tensor losses_after(const Decoder& model, const at::Tensor& h, const at::Tensor& targets) {
  const at::NoGradGuard no_grad;
  const PreNorm norm = model.final_norm();
  ops::Backend& backend = model.backend_for({.taps = true});
  const at::Tensor x = backend.add_norm(h, {}, norm_of(norm), norm.type).x;
  const at::Tensor logits = model.head(x).flatten(0, 1).to(h.scalar_type());
  return at::cross_entropy_loss(logits, targets.flatten(), {}, at::Reduction::None, kUnscored)
      .view(targets.sizes());
}

}  // namespace wavroute
