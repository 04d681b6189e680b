// A whole block of a routed stream: the time of phase 1, phase 2, writes and norms together.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <memory>

#include "opbench/operator.h"
#include "ops/backend.h"
#include "residual/routed.h"
#include "wavroute/residual.h"

namespace wavroute::opbench {
namespace {

constexpr int64_t kBlocks = 3, kLength = 16;
constexpr int64_t kLayers = kBlocks * kLength / 2;
constexpr int64_t kFirst = (kBlocks - 1) * kLength, kEnd = kBlocks * kLength;
constexpr int64_t kSums = 3;                             // of a block: S and two details
constexpr int64_t kSources = 1 + (kBlocks - 1) * kSums;  // finished before the block

std::unique_ptr<Residual> three_sums(int64_t width) {
  RoutedSpec spec;
  spec.blocks = resolve_blocks(kBlocks, {kLayers, width}, /*even_length=*/true);
  spec.details = {phase_basis(), split_basis()};
  spec.norm_eps = kNormEps;
  return std::make_unique<RoutedResidual>(std::move(spec), Options{}, ModelSize{kLayers, width});
}

// Blocks of 16 with both details, of which the last one is timed; tensors that every stream shares.
struct Scheme {
  explicit Scheme(const Problem& p)
      : residual(three_sums(p.width)),
        embedding(values({1, p.tokens, p.width})),
        dx(values({1, p.tokens, p.width}, p.type)) {
    residual->declare(parameters);
    gain = &parameters.declare("norm", {p.width}, Decay::kNo, {1.0});
    parameters.allocate(at::kFloat, p.type, at::kCPU, /*seed=*/1);
    for (int64_t i = 0; i < kLength; ++i) updates.push_back(values(embedding.sizes(), p.type));
    norm = {gain, kNormEps, p.type};
  }

  std::unique_ptr<Residual> residual;
  ParameterTable parameters;
  Parameter* gain = nullptr;
  PreNorm norm;
  at::Tensor embedding;             // [1, tokens, d]
  at::Tensor dx;                    // [1, tokens, d]
  std::vector<at::Tensor> updates;  // [1, tokens, d]
};

// A stream just before the block, or just after it.
class Standing {
 public:
  Standing(const Scheme& scheme, std::unique_ptr<ops::Backend> backend)
      : scheme_(scheme), backend_(std::move(backend)) {
    options_.pass.training = true;
    options_.backend = backend_.get();
  }

  void stand_before() {
    stream_ = scheme_.residual->open(options_);
    stream_->begin(scheme_.embedding);
    (void)walk(0, kFirst);
    stream_->set_record(true);
  }
  void stand_after() {
    stand_before();
    (void)forward();
    (void)stream_->read_out_normed(scheme_.norm);
    stream_->read_out_normed_backward(scheme_.norm, scheme_.dx, 0.0);
  }

  // x of the last read.
  Tensors forward() { return {walk(kFirst, kEnd)}; }
  // The gradient of the first update.
  Tensors backward() {
    at::Tensor du;
    for (int64_t i = kEnd - 1; i >= kFirst; --i) {
      du = stream_->write_backward(Site::at(i));
      stream_->read_normed_backward(Site::at(i), scheme_.norm, scheme_.dx);
    }
    return {du};
  }

 private:
  at::Tensor walk(int64_t begin, int64_t end) {
    at::Tensor x;
    for (int64_t i = begin; i < end; ++i) {
      x = stream_->read_normed(Site::at(i), scheme_.norm);
      stream_->write(Site::at(i), scheme_.updates[static_cast<size_t>(i % kLength)]);
    }
    return x;
  }

  const Scheme& scheme_;
  std::unique_ptr<ops::Backend> backend_;
  StreamOptions options_;
  std::unique_ptr<Stream> stream_;
};

}  // namespace

void show_route_block(const Problem& p, const Visit& visit) {
  const Scheme scheme(p);
  Standing ours(scheme, ops::make_cpu_backend());
  Standing composed(scheme, ops::make_composed_backend(at::kCPU));
  const std::string size =
      fmt::format("{}, {} sources", rows_by_columns(p.tokens, p.width), kSources);
  const double row = bytes_of({scheme.embedding}), narrow = bytes_of({scheme.dx});
  // Reads the finished sources and the updates; gives x and h of every read, and the block's sums.
  visit({"forward",
         size,
         {[&] { return ours.forward(); }, [&] { ours.stand_before(); }},
         {[&] { return composed.forward(); }, [&] { composed.stand_before(); }},
         static_cast<double>(kSources + kLength + kSums) * row +
             static_cast<double>(2 * kLength) * narrow});
  // Reads the sources, the block's sums, and dx, h and the update of every read; gives its du. The
  // gradients of sources and sums are read and written.
  visit({"backward",
         size,
         {[&] { return ours.backward(); }, [&] { ours.stand_after(); }},
         {[&] { return composed.backward(); }, [&] { composed.stand_after(); }},
         static_cast<double>(3 * (kSources + kSums) + kLength) * row +
             static_cast<double>(3 * kLength) * narrow});
}

}  // namespace wavroute::opbench
