// DenseFormer (arXiv 2402.02622): after layer i the stream is a learned average of the outputs of
// the layers so far, Y_i = sum_j alpha_ij X_j (docs/method.md).
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "ops/backend.h"
#include "residual/configured.h"
#include "residual/options.h"
#include "residual/schemes.h"
#include "wavroute/error.h"

namespace wavroute::schemes {
namespace {

std::vector<OptionSpec> specs() {
  return {{"dilation",
           OptionType::kInt,
           int64_t{1},
           "k: layer i averages the outputs j = i, i - k, i - 2k, ...",
           false,
           {}},
          {"period",
           OptionType::kInt,
           int64_t{1},
           "p: an average after the layers p, 2p, 3p, ... alone",
           false,
           {}}};
}

// X_0 = e and X_1 .. X_L, the outputs of the layers, are numbered as in the paper: number i is
// stored layer i - 1.
class DenseFormer final : public ConfiguredResidual {
 public:
  DenseFormer(Options options, const ModelSize& size)
      : ConfiguredResidual(std::move(options), size),
        dilation_(get<int64_t>(given(), "dilation")),
        period_(get<int64_t>(given(), "period")) {}

  void declare(ParameterTable& table) override {
    weights_.assign(static_cast<size_t>(size().layers + 1), nullptr);
    for (int64_t i = 1; i <= size().layers; ++i) {
      if (!averages(i)) continue;
      std::vector<double> one_hot(static_cast<size_t>(count(i)), 0.0);
      one_hot.back() = 1.0;
      weights_[static_cast<size_t>(i)] =
          &table.declare(fmt::format("model.layers.{}.depth_weights", i - 1), {count(i)},
                         Decay::kNo, {.values = std::move(one_hot)});
    }
  }
  [[nodiscard]] std::unique_ptr<Stream> open(const StreamOptions& options) const override;
  [[nodiscard]] double flops_per_token() const override {
    int64_t terms = 0;
    for (int64_t i = 1; i <= size().layers; ++i) terms += averages(i) ? count(i) : 0;
    return 2.0 * static_cast<double>(terms * size().width);
  }
  // Every X_j, and in training the gradients of all averages.
  [[nodiscard]] double standing_states(bool training) const override {
    const int64_t grads = training ? size().layers / period_ : 0;
    return static_cast<double>(size().layers + 1 + grads);
  }
  // The X_j that a later average reads, and what the next sublayer reads where that is none of
  // them.
  [[nodiscard]] double carried_states(int64_t sublayer) const override {
    const int64_t last = sublayer / 2;  // X_0 .. X_last are there
    const auto is_read_later = [&](int64_t j) {
      for (int64_t i = last + 1; i <= size().layers; ++i) {
        if (weighs(i, j)) return true;
      }
      return false;
    };
    double carried = 0;
    for (int64_t j = 0; j <= last; ++j) carried += is_read_later(j) ? 1 : 0;
    const bool is_output = sublayer % 2 == 0 && (last == 0 || !averages(last));
    return is_output && is_read_later(last) ? carried : carried + 1;
  }

  [[nodiscard]] int64_t layers() const { return size().layers; }
  // Whether there is an average after layer i, and whether it has a weight for X_j.
  [[nodiscard]] bool averages(int64_t i) const { return i % period_ == 0; }
  [[nodiscard]] bool weighs(int64_t i, int64_t j) const {
    return averages(i) && j <= i && (i - j) % dilation_ == 0;
  }
  [[nodiscard]] int64_t dilation() const { return dilation_; }
  // The least number that layer i averages, and how many there are.
  [[nodiscard]] int64_t first(int64_t i) const { return i % dilation_; }
  [[nodiscard]] int64_t count(int64_t i) const { return i / dilation_ + 1; }
  // alpha_i [count(i)], of the numbers first(i), first(i) + k, ..., i.
  [[nodiscard]] const Parameter& weights(int64_t i) const {
    return *weights_[static_cast<size_t>(i)];
  }

 private:
  int64_t dilation_;                 // k
  int64_t period_;                   // p
  std::vector<Parameter*> weights_;  // by i; null: no average there
};

// Rows of `all` [n, m]: a view where they are evenly spaced.
at::Tensor rows_of(ops::Backend& backend, const at::Tensor& all, const std::vector<int64_t>& rows) {
  const int64_t step = rows.size() > 1 ? rows[1] - rows[0] : 1;
  bool even = step > 0;
  for (size_t i = 1; i < rows.size(); ++i) even = even && rows[i] - rows[i - 1] == step;
  if (even) return all.slice(0, rows.front(), rows.back() + 1, step);
  return all.index_select(0, backend.numbers(rows));
}

// Every mixture is a product of a matrix of rows [n, B T d] and a vector. In a layer program the
// weights of a stored layer keep to the outputs of the stored layers that they were trained on: a
// layer that has not run is no source, one that ran again is read by its latest output [ours].
class DenseFormerStream final : public Stream {
 public:
  DenseFormerStream(const DenseFormer& scheme, const StreamOptions& options)
      : Stream(options), scheme_(scheme) {}

  void begin(const at::Tensor& embedding) override {
    const at::NoGradGuard no_grad;
    h_ = embedding;
    outputs_ = at::empty({scheme_.layers() + 1, embedding.numel()}, embedding.options());
    outputs_[0].copy_(embedding.flatten());
    has_run_.assign(static_cast<size_t>(scheme_.layers() + 1), 0);
    has_run_[0] = 1;
  }

  [[nodiscard]] at::Tensor read(const Site&) override { return h_; }

  void write(const Site& site, const at::Tensor& update) override {
    const at::NoGradGuard no_grad;
    update_type_ = update.scalar_type();
    h_ = at::add(h_, update);
    if (site.kind == SublayerKind::kAttention) return;
    const int64_t i = site.layer + 1;
    if (record_) {
      replaced_.push_back(has_run(i) ? outputs_[i].clone() : at::Tensor());
    }
    outputs_[i].copy_(h_.flatten());
    has_run_[static_cast<size_t>(i)] = 1;
    if (!scheme_.averages(i)) return;
    ++averages_;
    const Sources sources = sources_of(i);
    const at::Tensor weights = sources.chosen(backend(), scheme_.weights(i).value.detach());
    h_ = at::mv(rows_of(backend(), outputs_, sources.numbers).t(), weights).view(h_.sizes());
  }

  [[nodiscard]] at::Tensor read_out() override { return h_; }

  void read_out_backward(const at::Tensor& grad, double) override {
    const at::NoGradGuard no_grad;
    grad_ = grad;
    averaged_.clear();
    average_grads_ = at::empty({averages_, h_.numel()}, h_.options());
    first_reader_.assign(has_run_.size(), 0);
    matrix_ = at::zeros({scheme_.layers() + 1, scheme_.layers() + 1}, h_.options());
    for (int64_t i = 1; i <= scheme_.layers(); ++i) {
      if (!scheme_.averages(i)) continue;
      matrix_[i]
          .slice(0, scheme_.first(i), i + 1, scheme_.dilation())
          .copy_(scheme_.weights(i).value.detach());
    }
  }

  [[nodiscard]] at::Tensor write_backward(const Site& site) override {
    const at::NoGradGuard no_grad;
    if (site.kind == SublayerKind::kAttention) return grad_.to(update_type_);
    const int64_t i = site.layer + 1;
    if (scheme_.averages(i)) {
      at::Tensor grad = average_grads_[static_cast<int64_t>(averaged_.size())];
      grad.copy_(grad_.flatten());
      averaged_.push_back(i);
      const Sources sources = sources_of(i);
      sources.add(backend(), at::mv(rows_of(backend(), outputs_, sources.numbers), grad),
                  scheme_.weights(i).value.grad());
      grad_ = collected(i);
    } else if (const at::Tensor later = collected(i); later.defined()) {
      grad_ = grad_ + later;
    }
    // The readers before this write read what it replaced, or nothing.
    first_reader_[static_cast<size_t>(i)] = averaged_.size();
    const at::Tensor before = std::move(replaced_.back());
    replaced_.pop_back();
    has_run_[static_cast<size_t>(i)] = before.defined() ? 1 : 0;
    if (before.defined()) outputs_[i].copy_(before);
    return grad_.to(update_type_);
  }

  void read_backward(const Site&, const at::Tensor& grad) override {
    const at::NoGradGuard no_grad;
    grad_ = grad_ + grad;
  }

  [[nodiscard]] at::Tensor begin_backward() override {
    const at::NoGradGuard no_grad;
    const at::Tensor later = collected(0);
    return later.defined() ? grad_ + later : grad_;
  }

  [[nodiscard]] StreamSnapshot snapshot() override { return {h_, at::tensor(has_run_, at::kLong)}; }
  // What ran since is computed again, to the same bits: its outputs may stay.
  void restore(const StreamSnapshot& snapshot) override {
    h_ = snapshot[0];
    const int64_t* has_run = snapshot[1].const_data_ptr<int64_t>();
    has_run_.assign(has_run, has_run + snapshot[1].numel());
    replaced_.clear();
  }

 private:
  // What an average takes.
  struct Sources {
    std::vector<int64_t> numbers;  // j, increasing
    std::vector<int64_t> places;   // of their weights
    bool all = true;               // every weight has its source

    [[nodiscard]] at::Tensor chosen(ops::Backend& backend, const at::Tensor& weights) const {
      return all ? weights : weights.index_select(0, backend.numbers(places));
    }
    // weights[places] += values
    void add(ops::Backend& backend, const at::Tensor& values, const at::Tensor& weights) const {
      if (all) {
        weights.add_(values);
      } else {
        weights.index_add_(0, backend.numbers(places), values);
      }
    }
  };

  [[nodiscard]] bool has_run(int64_t i) const { return has_run_[static_cast<size_t>(i)] != 0; }

  [[nodiscard]] Sources sources_of(int64_t i) const {
    Sources sources;
    for (int64_t place = 0; place < scheme_.count(i); ++place) {
      const int64_t j = scheme_.first(i) + place * scheme_.dilation();
      if (has_run(j)) {
        sources.numbers.push_back(j);
        sources.places.push_back(place);
      } else {
        sources.all = false;
      }
    }
    return sources;
  }

  // sum_i alpha_ij dY_i over the averages that read this X_j, gathered when its turn comes, so that
  // no gradient is written twice. Undefined: none read it.
  [[nodiscard]] at::Tensor collected(int64_t j) const {
    std::vector<int64_t> rows, readers;
    for (size_t r = first_reader_[static_cast<size_t>(j)]; r < averaged_.size(); ++r) {
      if (!scheme_.weighs(averaged_[r], j)) continue;
      rows.push_back(static_cast<int64_t>(r));
      readers.push_back(averaged_[r]);
    }
    if (rows.empty()) return {};
    const at::Tensor weights = matrix_.select(1, j).index_select(0, backend().numbers(readers));
    return at::mv(rows_of(backend(), average_grads_, rows).t(), weights).view(grad_.sizes());
  }

  const DenseFormer& scheme_;
  at::Tensor h_;                  // what the next sublayer reads
  at::Tensor outputs_;            // X_j [L + 1, B T d]; those that have not run hold nothing
  std::vector<int64_t> has_run_;  // by j, 1 or 0
  int64_t averages_ = 0;          // taken in the forward
  at::ScalarType update_type_ = at::kFloat;
  std::vector<at::Tensor> replaced_;  // X_i before each recorded write of it; undefined: none
  // Backward.
  at::Tensor grad_;                   // of h
  at::Tensor average_grads_;          // dY [averages, B T d], the last average first
  std::vector<int64_t> averaged_;     // the layer of each of its rows that is there
  std::vector<size_t> first_reader_;  // by j: the first of these rows that read this X_j
  at::Tensor matrix_;                 // alpha_ij [L + 1, L + 1]
};

std::unique_ptr<Stream> DenseFormer::open(const StreamOptions& options) const {
  return std::make_unique<DenseFormerStream>(*this, options);
}

std::unique_ptr<Residual> create(const Options& given, const ModelSize& size, double) {
  Options options = with_defaults(given, specs(), "denseformer");
  for (const char* name : {"dilation", "period"}) {
    if (const auto value = get<int64_t>(options, name); value < 1) {
      throw expected("a number of at least 1", value, fmt::format("as residual.{}", name));
    }
  }
  return std::make_unique<DenseFormer>(std::move(options), size);
}

}  // namespace

SchemeInfo denseformer() {
  return {"denseformer", "DenseFormer: averages of the layers' outputs (arXiv 2402.02622)", specs(),
          create};
}

}  // namespace wavroute::schemes
