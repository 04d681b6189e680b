// A whole routed stream by functional operators under ordinary autograd, against the stream that
// the trainer uses: how a user writes WAV's forward, and that it is the same function.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <map>

#include "ops/backend.h"
#include "residual/routed.h"
#include "tests/error_ratio.h"
#include "tests/functional/support.h"
#include "wavroute/residual.h"

namespace wavroute::functional {
namespace {

constexpr int64_t kTokens = 40, kWidth = 24;
constexpr double kNormEps = 1e-6;

// ---- the example: a routed stream as a user writes it -------------------------------------------

struct RouterWeights {
  at::Tensor w, g, beta;  // [d], [d], [details]
  [[nodiscard]] at::Tensor query() const { return w * g; }
  // 0 for a summary and beta for its details, `blocks` times; before them e's, where `with_e`.
  [[nodiscard]] at::Tensor bias(int64_t blocks, bool with_e) const {
    const at::Tensor zero = w.new_zeros({1});
    Tensors pieces;
    if (with_e) pieces.push_back(zero);
    for (int64_t n = 0; n < blocks; ++n) {
      pieces.push_back(zero);
      if (beta.defined()) pieces.push_back(beta);
    }
    return at::cat(pieces);
  }
};

// A model in which only the residual stream is not trivial.
struct Model {
  Blocks blocks;
  int64_t details = 0;
  bool partial_details = true;
  std::function<double(int64_t sublayer, int64_t detail)> sign;
  std::vector<RouterWeights> routers;  // by sublayer (the first has none), then the read-out's
  Tensors gains;                       // by sublayer, then the final norm's
  std::function<at::Tensor(int64_t sublayer, const at::Tensor& x)> sublayer;
  Eps eps;
};

// The normed read-out of e [tokens, d]; sublayers compute in `type`.
at::Tensor forward(const Model& model, const at::Tensor& e, at::ScalarType type) {
  std::vector<int64_t> forms, read_forms;
  for (int64_t f = 0; f <= model.details; ++f) forms.push_back(f);
  read_forms = model.partial_details ? forms : std::vector<int64_t>{0};
  Finished finished;
  finished.rows = {e};
  const SourceScalars scalars = source_scalars(e, {}, model.eps);
  finished.ratio = scalars.ratio.unsqueeze(0);
  finished.inverse = scalars.inverse.unsqueeze(0);

  const auto phase_one = [&](int64_t first, int64_t count, int64_t block) {
    Tensors queries, biases;
    for (int64_t r = first; r < first + count; ++r) {
      queries.push_back(model.routers[static_cast<size_t>(r)].query());
      biases.push_back(model.routers[static_cast<size_t>(r)].bias(block, /*with_e=*/true));
    }
    return route_mix(finished.rows, finished.ratio, finished.inverse, at::stack(queries),
                     at::stack(biases))
        .unbind();
  };
  const auto reader = [&](int64_t sublayer) {
    const RouterWeights& router = model.routers[static_cast<size_t>(sublayer)];
    const auto count = static_cast<int64_t>(read_forms.size());
    return Reader{router.query(), router.bias(1, false).narrow(0, 0, count),
                  model.gains[static_cast<size_t>(sublayer)]};
  };

  for (int64_t block = 0; block < model.blocks.count; ++block) {
    const int64_t start = block * model.blocks.length, length = model.blocks.length_of(block);
    const int64_t skipped = block == 0 ? 1 : 0;  // sublayer 1 reads e itself
    std::vector<Mixture> mixtures(static_cast<size_t>(skipped));
    for (Mixture& mixture : phase_one(start + skipped, length - skipped, block)) {
      mixtures.push_back(std::move(mixture));
    }
    at::Tensor x;
    if (block == 0) {
      x = add_norm(e, {}, model.gains[0], model.eps.norm, {}, 1.0, type).x;
    } else {
      Reader first = reader(start);
      first.bias.reset();
      x = route_read({}, 0, {}, {}, mixtures[0], first, model.eps, type).x;
    }
    Parts parts(size_t{1} << model.details);
    for (int64_t i = 0; i < length; ++i) {
      const at::Tensor u = model.sublayer(start + i, x);
      int64_t part = 0;
      for (int64_t s = 0; s < model.details; ++s) {
        if (model.sign(start + i, s) < 0) part += int64_t{1} << s;
      }
      if (i + 1 < length) {
        const Read read =
            route_read(u, part, parts, read_forms, mixtures[static_cast<size_t>(i) + 1],
                       reader(start + i + 1), model.eps);
        parts[static_cast<size_t>(part)] = read.part;
        x = read.x;
        continue;
      }
      const Finished sums = route_finish(u, part, parts, forms, model.eps);
      finished.rows.insert(finished.rows.end(), sums.rows.begin(), sums.rows.end());
      finished.ratio = at::cat({finished.ratio, sums.ratio});
      finished.inverse = at::cat({finished.inverse, sums.inverse});
    }
  }
  const int64_t last = model.blocks.sublayers;
  Reader read_out = reader(last);
  read_out.bias.reset();
  return route_read({}, 0, {}, {}, phase_one(last, 1, model.blocks.count)[0], read_out, model.eps,
                    type)
      .x;
}

// ---- the same scheme, driven by hand ------------------------------------------------------------

struct SchemeCase {
  std::string name, scheme;
  Options options;
  int64_t layers;
};
void PrintTo(const SchemeCase& c, std::ostream* out) { *out << c.name; }

// What a pass gives: the read-out, the gradient of e, and that of every parameter.
using Record = std::vector<at::Tensor>;

class Driven {
 public:
  Driven(const SchemeCase& c, at::ScalarType storage, const std::string& draw = {})
      : size_{c.layers, kWidth},
        residual_(find_scheme(c.scheme).create(c.options, size_, kNormEps)) {
    residual_->declare(table_);
    for (int64_t i = 0; i <= size_.sublayers(); ++i) {
      gains_.push_back(
          &table_.declare("gain" + std::to_string(i), {kWidth}, Decay::kNo, {1.0, 0.0}));
    }
    table_.allocate(storage, storage, at::kCPU, 1);
    const at::NoGradGuard no_grad;
    for (const Parameter& parameter : table_.parameters()) {  // no zero query, no unit gain
      parameter.value.add_(
          random_values(parameter.shape, parameter.slices[0].name + draw).mul(0.3).to(storage));
    }
  }
  [[nodiscard]] const RoutedResidual& scheme() const {
    return dynamic_cast<const RoutedResidual&>(*residual_);
  }

  // f_l(x) = c_l tanh(x)
  static double strength(int64_t sublayer) { return 0.4 + 0.1 * static_cast<double>(sublayer); }
  static at::Tensor sublayer(int64_t index, const at::Tensor& x) {
    return x.tanh() * strength(index);
  }

  Record run(const at::Tensor& e, const at::Tensor& grad, at::ScalarType type, bool fused) {
    const at::NoGradGuard no_grad;
    table_.zero_grad();
    const auto backend = fused ? ops::make_cpu_backend() : ops::make_composed_backend(at::kCPU);
    StreamOptions options;
    options.backend = backend.get();
    options.pass.training = true;
    options.record = true;
    const auto stream = residual_->open(options);
    const auto norm = [&](int64_t i) {
      return PreNorm{gains_[static_cast<size_t>(i)], kNormEps, type};
    };
    std::vector<at::Tensor> inputs;
    stream->begin(e.unsqueeze(0));
    for (int64_t i = 0; i < size_.sublayers(); ++i) {
      inputs.push_back(stream->read_normed(Site::at(i), norm(i)));
      stream->write(Site::at(i), sublayer(i, inputs.back()));
    }
    Record record = {stream->read_out_normed(norm(size_.sublayers())).squeeze(0).clone()};
    stream->read_out_normed_backward(norm(size_.sublayers()), grad.to(type).unsqueeze(0), 0.0);
    for (int64_t i = size_.sublayers() - 1; i >= 0; --i) {
      const at::Tensor du = stream->write_backward(Site::at(i));
      const at::Tensor y = inputs[static_cast<size_t>(i)].tanh();
      stream->read_normed_backward(Site::at(i), norm(i), du * strength(i) * (1 - y * y));
    }
    record.push_back(stream->begin_backward().squeeze(0).clone());
    for (const Parameter& parameter : table_.parameters()) {
      record.push_back(parameter.value.grad().clone());
    }
    return record;
  }

  // The same by functional operators, from the same parameters.
  Record run_functional(const at::Tensor& e, const at::Tensor& grad, at::ScalarType type) {
    std::map<const Parameter*, at::Tensor> leaves;
    for (const Parameter& parameter : table_.parameters()) {
      leaves[&parameter] = parameter.value.detach().clone().set_requires_grad(true);
    }
    const RoutedSpec& spec = scheme().spec();
    Model model;
    model.blocks = spec.blocks;
    model.details = static_cast<int64_t>(spec.details.size());
    model.partial_details = spec.partial_details;
    model.sign = [&](int64_t sublayer, int64_t detail) {
      return spec.details[static_cast<size_t>(detail)].sign(
          Site::at(sublayer), spec.blocks.position_of(sublayer),
          spec.blocks.length_of(spec.blocks.block_of(sublayer)));
    };
    for (int64_t i = 0; i <= size_.sublayers(); ++i) {
      const Router& router =
          i == size_.sublayers() ? scheme().router({}) : scheme().router(Site::at(i));
      RouterWeights& weights = model.routers.emplace_back();
      model.gains.push_back(leaves.at(gains_[static_cast<size_t>(i)]));
      if (router.query == nullptr) continue;
      weights.w = leaves.at(router.query).view({-1});
      weights.g = leaves.at(router.gain);
      if (router.bias != nullptr) weights.beta = leaves.at(router.bias);
    }
    model.sublayer = sublayer;
    model.eps = {spec.norm_eps, spec.matching_eps};
    const at::Tensor embedding = e.clone().set_requires_grad(true);
    const at::Tensor out = forward(model, embedding, type);
    torch::autograd::backward({out}, {grad.to(type)});
    Record record = {out.detach(), embedding.grad()};
    for (const Parameter& parameter : table_.parameters()) {
      record.push_back(leaves.at(&parameter).grad());
    }
    return record;
  }

 private:
  ModelSize size_;
  std::unique_ptr<Residual> residual_;
  ParameterTable table_;
  std::vector<Parameter*> gains_;
};

class Stream : public ::testing::TestWithParam<SchemeCase> {
 protected:
  void SetUp() override { at::set_num_threads(1); }  // work this small is slower on more threads
  void TearDown() override { at::set_num_threads(threads_); }

  at::Tensor e = random_values({kTokens, kWidth}, "e");
  at::Tensor grad = random_values({kTokens, kWidth}, "grad", at::kBFloat16);
  int threads_ = at::get_num_threads();

  // Root mean squares of the errors of the read-out, de, and all parameters together.
  static std::array<double, 3> errors(const Record& actual, const Record& exact) {
    const auto all = [](const Record& record) {
      Tensors flat;
      for (size_t i = 2; i < record.size(); ++i) {
        flat.push_back(record[i].flatten().to(at::kDouble));
      }
      return at::cat(flat);
    };
    return {error_of(actual[0], exact[0]), error_of(actual[1], exact[1]),
            error_of(all(actual), all(exact))};
  }
};

// Two blocks of four, and a last block that is shorter.
std::vector<SchemeCase> cases() {
  using Names = std::vector<std::string>;
  std::vector<SchemeCase> all;
  for (const auto& [layers, blocks] : {std::pair<int64_t, int64_t>{4, 2}, {5, 3}}) {
    const std::string size = "_" + std::to_string(layers);
    all.push_back({"no_details" + size, "block_attnres", {{"blocks", blocks}}, layers});
    all.push_back(
        {"phase" + size, "wav", {{"blocks", blocks}, {"details", Names{"phase"}}}, layers});
    all.push_back({"split" + size, "haares", {{"blocks", blocks}}, layers});
    all.push_back({"both" + size, "wav", {{"blocks", blocks}}, layers});
    all.push_back({"both_of_finished_blocks" + size,
                   "wav",
                   {{"blocks", blocks}, {"partial_details", false}},
                   layers});
  }
  return all;
}
INSTANTIATE_TEST_SUITE_P(, Stream, ::testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.name; });

TEST_P(Stream, InDoubleIsTheComposedStreamInValueAndGradient) {
  Driven driven(GetParam(), at::kDouble);
  const Record expected = driven.run(e, grad, at::kDouble, /*fused=*/false);
  for (const double error : errors(driven.run_functional(e, grad, at::kDouble), expected)) {
    EXPECT_LE(error, 1e-12);
  }
}

// As close to double as the trainer's stream of the same types, over several draws of the
// parameters: how far rounding errors grow in one of them is chance.
TEST_P(Stream, OnKernelsIsTheTrainersStreamInValueAndGradient) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    SCOPED_TRACE(type);
    std::array<testing::ErrorRatio, 3> to_trainers, to_bound;
    for (uint64_t draw = 1; draw <= testing::ErrorRatio::kDraws; ++draw) {
      const std::string name = " of draw " + std::to_string(draw);
      Driven exact(GetParam(), at::kDouble, name), driven(GetParam(), at::kFloat, name);
      const Record reference = exact.run(e, grad, at::kDouble, /*fused=*/false);
      const at::Tensor embedding = e.to(at::kFloat);
      const Record trainers = driven.run(embedding, grad, type, /*fused=*/true);
      const Record ours = driven.run_functional(embedding, grad, type);
      const auto theirs = errors(trainers, reference), own = errors(ours, reference);
      for (size_t i = 0; i < own.size(); ++i) {
        to_trainers[i].add(own[i], theirs[i], 1e-7);
        to_bound[i].add(own[i], type == at::kFloat ? 1e-5 : 0.2, 0.0);
      }
    }
    for (size_t i = 0; i < to_bound.size(); ++i) {
      EXPECT_LE(to_trainers[i].mean(), 1.5) << i;
      EXPECT_LE(to_bound[i].mean(), 1.0) << i;
    }
  }
}

}  // namespace
}  // namespace wavroute::functional
