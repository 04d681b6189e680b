// mHC-lite (arXiv 2601.05732): n parallel streams, mixed by a doubly stochastic matrix that is a
// weighted mean of permutations (docs/method.md).
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "ops/backend.h"
#include "ops/zero_rows.h"
#include "residual/coefficients.h"
#include "residual/composed.h"
#include "residual/configured.h"
#include "residual/options.h"
#include "residual/product.h"
#include "residual/schemes.h"
#include "wavroute/error.h"

namespace wavroute::schemes {
namespace {

constexpr int64_t kFewestStreams = 2, kMostStreams = 5;  // of 5 there are 120 permutations

std::vector<OptionSpec> specs() {
  return {{"streams",
           OptionType::kInt,
           int64_t{4},
           "n: parallel streams, from 2 to 5; their carry is a mean of n! permutations",
           false,
           {}}};
}

int64_t factorial(int64_t n) { return n <= 1 ? 1 : n * factorial(n - 1); }

// [n! n n]: row r of matrix P_k has its 1 at perm_k[r]. Lexicographic, the identity first.
std::vector<int64_t> permutation_matrices(int64_t n) {
  std::vector<int64_t> matrices(static_cast<size_t>(factorial(n) * n * n), 0);
  auto row = matrices.begin();
  std::vector<int64_t> permutation(static_cast<size_t>(n));
  std::iota(permutation.begin(), permutation.end(), int64_t{0});
  do {
    for (const int64_t taken : permutation) {
      row[taken] = 1;
      row += n;
    }
  } while (std::ranges::next_permutation(permutation).found);
  return matrices;
}

// What makes the coefficients of a sublayer from all streams, read, write and carry: the logits
// P = a (x' phi) + b, x' = RMSNorm(vec x).
enum Part : size_t { kPre, kPost, kRes, kParts };
constexpr std::array<const char*, kParts> kNames = {"pre", "post", "res"};

struct Mixer {
  Parameter* gain = nullptr;                  // of the norm [n d]
  Parameter* phi = nullptr;                   // all parts [2 n + n!, n d]
  std::array<Parameter*, kParts> bias = {};   // b [n], [n], [n!]
  std::array<Parameter*, kParts> scale = {};  // a [1]
};

class MhcLite final : public ConfiguredResidual {
 public:
  MhcLite(Options options, const ModelSize& size, double norm_eps)
      : ConfiguredResidual(std::move(options), size), norm_eps_(norm_eps) {}

  void declare(ParameterTable& table) override {
    for (int64_t i = 0; i < size().sublayers(); ++i) {
      const std::string prefix =
          fmt::format("model.layers.{}.{}_hc_", i / 2, i % 2 == 0 ? "self_attn" : "mlp");
      Mixer& mixer = mixers_.emplace_back();
      mixer.gain =
          &table.declare(prefix + "norm.weight", {streams() * size().width}, Decay::kNo, {1.0});
      std::vector<ParameterSlice> phi;
      for (size_t part = 0; part < kParts; ++part) {
        const std::string name = prefix + kNames[part];
        phi.push_back({name + ".weight", 0, outputs(part), Init{0.0}});
        mixer.bias[part] = &table.declare(name + ".bias", {outputs(part)}, Decay::kNo,
                                          {.values = first_bias(part, i)});
        mixer.scale[part] = &table.declare(name + "_scale", {1}, Decay::kNo, {0.01});
      }
      mixer.phi = &table.declare_fused(std::move(phi), streams() * size().width, Decay::kYes);
    }
  }
  [[nodiscard]] std::unique_ptr<Stream> open(const StreamOptions& options) const override;
  // Every read is the mean of the streams, of which a permutation changes nothing, and the writes
  // to them have a mean of 1, so that the mean is prenorm's stream; each sublayer prefers one of
  // them.
  [[nodiscard]] PlainStart start_from_plain() override {
    const at::NoGradGuard no_grad;
    const auto n = static_cast<double>(streams());
    const auto logit = [](double share) { return std::log(share / (1.0 - share)); };
    constexpr double kMore = 0.1;  // of the half that a write's sigmoid is
    for (size_t i = 0; i < mixers_.size(); ++i) {
      mixers_[i].bias[kPre]->value.fill_(logit(1.0 / n));
      at::Tensor post = mixers_[i].bias[kPost]->value;
      post.fill_(logit(0.5 - kMore / (n - 1.0)));
      post[static_cast<int64_t>(i) % streams()].fill_(logit(0.5 + kMore));
    }
    return {};
  }
  // phi, then H_pre x, H_res x and H_post u.
  [[nodiscard]] double flops_per_token() const override {
    const int64_t n = streams();
    const int64_t terms = n * (2 * n + factorial(n)) + n + n * n + n;
    return 2.0 * static_cast<double>(size().sublayers() * terms * size().width);
  }
  // Of a sublayer the streams before it, its update, and what its write takes; and the streams once
  // more, for what the heap leaves free between them, as measured.
  [[nodiscard]] double kept_states() const override {
    const auto n = static_cast<double>(streams());
    return static_cast<double>(size().sublayers()) *
           (2.0 * n + 1.0 + (n + n * n) / static_cast<double>(size().width));
  }
  // The streams, and in training what the twins of one write and one read pass through, as
  // measured.
  [[nodiscard]] double standing_states(bool training) const override {
    return (training ? 11.0 : 3.0) * static_cast<double>(streams());
  }
  [[nodiscard]] double snapshot_states() const override { return static_cast<double>(streams()); }

  [[nodiscard]] int64_t streams() const { return get<int64_t>(given(), "streams"); }
  [[nodiscard]] double norm_eps() const { return norm_eps_; }
  // Logits of a part.
  [[nodiscard]] int64_t outputs(size_t part) const {
    return part == kRes ? factorial(streams()) : streams();
  }
  [[nodiscard]] const Mixer& mixer(const Site& site) const {
    return mixers_[static_cast<size_t>(site.index())];
  }

 private:
  // Each sublayer prefers a stream, in turn, and carries all of them as they are.
  [[nodiscard]] std::vector<double> first_bias(size_t part, int64_t sublayer) const {
    std::vector<double> bias(static_cast<size_t>(outputs(part)), part == kRes ? -8.0 : -1.0);
    if (part == kRes) {
      bias[0] = 0.0;  // the identity
    } else {
      bias[static_cast<size_t>(sublayer % streams())] = 1.0;
    }
    return bias;
  }

  double norm_eps_;
  std::vector<Mixer> mixers_;  // by Site::index()
};

// Between sublayers the state is x [B,T,n,d]; a read adds h and what the write at its site takes.
enum Entry : size_t {
  kRead,     // h [B,T,d]
  kStreams,  // x [B,T,n,d]
  kWrite,    // H_post [B,T,n,1]
  kCarry,    // H_res [B,T,n,n]
};

class MhcLiteStream final : public ComposedStream {
 public:
  MhcLiteStream(const MhcLite& scheme, const StreamOptions& options)
      : ComposedStream(options), scheme_(scheme) {}

  void begin(const at::Tensor& embedding) override {
    const int64_t n = scheme_.streams();
    permutations_ = backend()
                        .numbers(permutation_matrices(n))
                        .view({factorial(n), n * n})
                        .t()
                        .to(embedding.scalar_type())
                        .contiguous();
    ComposedStream::begin(embedding);
  }

 protected:
  [[nodiscard]] State start(const at::Tensor& embedding) const override {
    std::vector<int64_t> shape = embedding.sizes().vec();
    shape.insert(shape.end() - 1, scheme_.streams());
    return {embedding.unsqueeze(-2).expand(shape).contiguous()};
  }

  [[nodiscard]] State enter(const Site& site, const State& state) const override {
    const at::Tensor& x = state[0];
    const State mixes =
        coefficients_of(options(), {.tokens = true}, [&] { return mixes_of(site, x); });
    return {batched_product(backend(), mixes[0], x).squeeze(-2), x, mixes[1], mixes[2]};
  }

  [[nodiscard]] State next(const Site&, const State& state, const at::Tensor& update,
                           bool live) const override {
    at::Tensor carried = batched_product(backend(), state[kCarry], state[kStreams]);
    const at::Tensor u = update.to(carried.scalar_type()).unsqueeze(-2);
    // In place where no graph needs the rows without it: what a pass keeps then lies end to end.
    return {live ? carried.addcmul_(state[kWrite], u) : at::addcmul(carried, state[kWrite], u)};
  }

  [[nodiscard]] at::Tensor output(const State& state) const override { return state[0].sum(-2); }

 private:
  // H_pre [B,T,1,n], H_post [B,T,n,1] and H_res [B,T,n,n] of the streams x [B,T,n,d].
  [[nodiscard]] State mixes_of(const Site& site, const at::Tensor& x) const {
    const Mixer& mixer = scheme_.mixer(site);
    // Of the storage type throughout: in bf16 the logits would lose what tells the streams apart.
    const at::Tensor normed = ops::rms_norm(x.flatten(-2), mixer.gain->value, scheme_.norm_eps());
    const auto products =
        product(backend(), normed, mixer.phi->value)
            .split_with_sizes(
                {scheme_.outputs(kPre), scheme_.outputs(kPost), scheme_.outputs(kRes)}, -1);
    const auto logits = [&](size_t part) {
      return at::addcmul(mixer.bias[part]->value, mixer.scale[part]->value, products[part]);
    };
    const at::Tensor read = at::sigmoid(logits(kPre)).unsqueeze(-2);  // H_pre [B,T,1,n]
    // Not at::softmax, whose backward has other bits with another number of threads.
    const at::Tensor shares = at::log_softmax(logits(kRes), -1).exp();
    const at::Tensor carry = product(backend(), shares, permutations_)
                                 .unflatten(-1, {scheme_.streams(), scheme_.streams()});
    return {read, 2.0 * at::sigmoid(logits(kPost)).unsqueeze(-1), carry};
  }

  const MhcLite& scheme_;
  at::Tensor permutations_;  // [n n, n!]
};

std::unique_ptr<Stream> MhcLite::open(const StreamOptions& options) const {
  return std::make_unique<MhcLiteStream>(*this, options);
}

std::unique_ptr<Residual> create(const Options& given, const ModelSize& size, double norm_eps) {
  Options options = with_defaults(given, specs(), "mhc_lite");
  if (const int64_t n = get<int64_t>(options, "streams"); n < kFewestStreams || n > kMostStreams) {
    throw expected(
        fmt::format("{} to {} streams", kFewestStreams, kMostStreams), n, "as residual.streams",
        "n streams are mixed by n! permutations, each with n d weights in every sublayer");
  }
  return std::make_unique<MhcLite>(std::move(options), size, norm_eps);
}

}  // namespace

SchemeInfo mhc_lite() {
  return {"mhc_lite", "mHC-lite: parallel streams mixed by permutations (arXiv 2601.05732)",
          specs(), create};
}

}  // namespace wavroute::schemes
