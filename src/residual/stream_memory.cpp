#include "residual/stream_memory.h"

#include <algorithm>

#include "ops/backend.h"
#include "ops/parallel.h"
#include "residual/normed_stream.h"
#include "residual/routed.h"

namespace wavroute {
namespace {

constexpr double kFloat = 4;  // bytes of a number of the stream

// A partial sum of `floats` floats per chunk of tokens.
double partial_sum(double floats) { return kFloat * floats / ops::kTokensPerChunk; }

bool keeps(const StreamSizes& s) { return s.segment == s.sublayers; }

// Snapshots that a pass with recomputation takes: one before each segment.
double snapshots(const StreamSizes& s) {
  return keeps(s) ? 0.0 : static_cast<double>(s.sublayers) / static_cast<double>(s.segment);
}

// AdditiveStream: h before every read, and every update that a scale multiplies.
StreamMemory additive(const Residual& residual, const StreamSizes& s) {
  const auto d = static_cast<double>(s.width);
  const double wide = kFloat * d, narrow = s.narrow * d;
  const auto reads = static_cast<double>(s.segment);
  const double scaled = std::min(residual.kept_states(), reads);
  // Of all reads, the embedding's and the gradient of h; the first h of a segment is its snapshot.
  const double states = keeps(s) ? reads + 2 : reads + snapshots(s);
  StreamMemory m;
  m.training = states * wide + scaled * narrow + reads * kFloat + partial_sum(2 * d);
  m.evaluation = 3 * wide;  // the embedding, h before and after a write
  return m;
}

// Streams of stock operators: the states that the scheme counts, and every h read.
StreamMemory composed(const Residual& residual, const StreamSizes& s) {
  const double wide = kFloat * static_cast<double>(s.width);
  const double part = static_cast<double>(s.segment) / static_cast<double>(s.sublayers);
  StreamMemory m;
  m.training = (part * (residual.kept_states() + static_cast<double>(s.sublayers)) +
                snapshots(s) * residual.snapshot_states() + residual.standing_states(true) + 4) *
               wide;
  m.evaluation = (8 + residual.standing_states(false)) * wide;
  return m;
}

// Whether attention and MLP of a layer differ in the sign of a detail.
bool has_two_slots(const RoutedSpec& spec) {
  return std::ranges::any_of(spec.details, [&](const DetailBasis& basis) {
    const int64_t length = spec.blocks.length;
    return basis.sign(Site::at(0), 0, length) != basis.sign(Site::at(1), 1, length);
  });
}

// PartsStream: the names are those of its members.
StreamMemory routed(const RoutedResidual& residual, const StreamSizes& s) {
  const Blocks& blocks = residual.spec().blocks;
  const auto real = [](int64_t n) { return static_cast<double>(n); };
  const double d = real(s.width), wide = kFloat * d, narrow = s.narrow * d;
  const auto details = static_cast<int64_t>(residual.spec().details.size());
  const double sums = real(1 + details), slots = real(1 << details);
  const double rows = 1 + real(blocks.count) * sums, longest = real(blocks.length);
  const double shorter = real(blocks.sublayers % blocks.length);

  double group_floats = 0;  // logits, lse, running, peak and mass of all groups
  for (int64_t block = 0; block <= blocks.count; ++block) {
    const double routers = block == blocks.count ? 1 : real(blocks.length_of(block));
    const double sources = 1 + real(block) * sums;
    group_floats += routers * (sources + 3 + 3 * sums);
  }
  // Mixtures and the gradients of a block's readers share their memory; the read-out has its own.
  const double block_rows = longest + shorter + 2;
  // A write makes a row for the reader after it; the last write of a block doesn't.
  const bool by_block = s.segment == blocks.length;
  const double written = keeps(s)   ? real(blocks.sublayers - blocks.count)
                         : by_block ? longest - 1
                                    : std::min(real(s.segment), longest);
  // The first snapshot has no parts; a layer's two writes change one part or two.
  const double changed = has_two_slots(residual.spec()) ? 2 : 1;
  const double in_snapshots =
      keeps(s) ? 0 : (snapshots(s) - 1) * (by_block ? slots : std::min(slots, changed));

  StreamMemory m;
  m.training = (2 * rows + written + 1 + in_snapshots) * wide +
               (real(s.segment) + 1 + block_rows) * narrow +
               kFloat * (2 * rows + group_floats + block_rows + real(s.segment)) +
               partial_sum((longest + 2) * d);
  m.evaluation =
      (rows + slots + 1) * wide + (block_rows - 1) * narrow + kFloat * 2 * (rows + block_rows);
  return m;
}

}  // namespace

StreamMemory stream_memory(const Residual& residual, const StreamSizes& sizes) {
  const std::unique_ptr<ops::Backend> backend = ops::make_cpu_backend();
  StreamOptions options;
  options.backend = backend.get();
  const std::unique_ptr<Stream> stream = residual.open(options);
  if (dynamic_cast<const NormedStream*>(stream.get()) == nullptr) return composed(residual, sizes);
  const auto* scheme = dynamic_cast<const RoutedResidual*>(&residual);
  return scheme != nullptr ? routed(*scheme, sizes) : additive(residual, sizes);
}

}  // namespace wavroute
