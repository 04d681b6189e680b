// The routed stream on our kernels (kernels/route.h): what RoutedStream computes, for the CPU, with
// a layer program that runs every layer once. Sums, scalars and their gradients are float; mixtures
// of finished sources and the gradients of h are of the norm's type, one for all readers of a
// block.
//
// Forward, a block: phase 1 mixes the finished sources for all of its routers at once, where that
// is faster than router by router. A write waits for the read after it: both are one pass.
// The running block is kept as parts (kernels/route.h): a write makes one new row, and where the
// backward will come, the rows that a reader saw stay as they are.
// Backward, a block: from the last sublayer to the first every reader's part in the gradients of
// the running sums is collected; then the finished sources take the gradients of all of the block's
// readers in one pass.
#pragma once

#include <array>
#include <map>
#include <optional>
#include <vector>

#include "kernels/route.h"
#include "ops/typed.h"
#include "residual/fused_stream.h"
#include "residual/routed.h"

namespace wavroute {

class FusedRoutedStream final : public FusedStream {
 public:
  FusedRoutedStream(const RoutedResidual& scheme, const StreamOptions& options);

  void begin(const at::Tensor& embedding) override;
  void write(const Site& site, const at::Tensor& update) override;
  [[nodiscard]] at::Tensor read_normed(const Site& site, const PreNorm& norm) override;
  [[nodiscard]] at::Tensor read_out_normed(const PreNorm& norm) override;

  [[nodiscard]] at::Tensor write_backward(const Site& site) override;
  void read_normed_backward(const Site& site, const PreNorm& norm, const at::Tensor& grad) override;
  void read_out_normed_backward(const PreNorm& norm, const at::Tensor& grad,
                                double auxiliary_grad) override;
  [[nodiscard]] at::Tensor begin_backward() override;

  [[nodiscard]] StreamSnapshot snapshot() override;
  void restore(const StreamSnapshot& snapshot) override;

 private:
  // Routers that read the same finished sources: those of a block, or the read-out's alone.
  // R routers, n sources.
  struct Group {
    std::vector<const Router*> routers;
    // By source, the first rows of the bank: which running sum of its block it was (0: a summary),
    // V [tokens, d], and its ratio and inverse rms [tokens].
    std::vector<int64_t> sums;
    std::vector<const float*> rows, ratios, inverses;
    at::Tensor query;       // [R, d], w * g
    at::Tensor bias;        // [R, n]
    at::Tensor peak, mass;  // [R, tokens]
    at::Tensor mixed;       // [R, tokens, d]; [1, tokens, d] where phase 1 goes one by one; in the
                            // norm's type, as dh: they are most of what is read and written
    bool two_phase = false;
    // For the backward:
    at::Tensor logits;   // [R n, tokens]
    at::Tensor lse;      // [R, tokens]
    at::Tensor running;  // [R running sums 3, tokens], see kept()
    at::Tensor dh;       // [R, tokens, d]
    at::Tensor along;    // [R, tokens]
  };
  // By slot: parts of a block, [tokens, d] float. Undefined: no update yet.
  using PartRows = std::array<at::Tensor, kernels::kMostParts>;
  // What a recorded read keeps.
  struct Record {
    at::Tensor h;            // [tokens, d] in the norm's type; in float where it is e
    at::Tensor inverse_rms;  // [tokens]
    PartRows parts;          // that it saw
  };
  // Rows that a kernel reads, and nothing else needs any more.
  struct Held {
    at::Tensor update, before;
    PartRows parts;
  };
  // Which parts a block has after some writes, in the kernels' order, and the form that each of
  // its sums then is.
  struct Layout {
    int count = 0;
    std::array<int, kernels::kMostParts> slot = {};
    std::array<int, kernels::kMostRunning> form = {};
  };

  [[nodiscard]] const Blocks& blocks() const { return scheme_.spec().blocks; }
  // Running sums of a block: S and its details.
  [[nodiscard]] int64_t sums() const {
    return static_cast<int64_t>(scheme_.spec().details.size()) + 1;
  }
  [[nodiscard]] int64_t first_row(int64_t block) const { return 1 + block * sums(); }
  [[nodiscard]] Site site_at(int64_t block, int64_t position) const {
    return Site::at(block * blocks().length + position);
  }
  // The sign of update `position` of a block in running sum `sum`.
  [[nodiscard]] float sign(int64_t block, int64_t position, int64_t sum) const;
  // The slot of the part that the update goes to: bit s - 1 is set where its sign in sum s is -1.
  [[nodiscard]] int slot(int64_t block, int64_t position) const;
  [[nodiscard]] Layout layout(int64_t block, int64_t writes) const;
  // Where the gradient of a form is collected: the first sum that is this form.
  [[nodiscard]] static int owner(const Layout& layout, int form);
  // The part of a tensor at `index` of its first dimension.
  template <typename T = float>
  [[nodiscard]] static T* row(const at::Tensor& of, int64_t index) {
    return ops::out<T>(of) + index * of.stride(0);
  }
  // What a router's read keeps of running sum `sum`, [tokens]: its dot, ratio, inverse.
  [[nodiscard]] float* kept(const Group& group, int64_t router, int64_t sum, int64_t which) const {
    return row(group.running, (router * sums() + sum) * 3 + which);
  }
  // The bias of a router for running sum `sum`.
  [[nodiscard]] static float bias_of(const Router& router, int64_t sum) {
    return sum == 0 ? 0.0F : ops::in<float>(router.bias->value)[sum - 1];
  }
  void measure_embedding();

  // Block blocks().count is the read-out's.
  [[nodiscard]] Group make_group(int64_t block) const;
  // What MixFinished and its backward know of `routers` routers of a group, from `router` on.
  template <typename Args>
  void set_sources(Args& args, const Group& group, int64_t router, int64_t routers) const {
    args.d = d_;
    args.tokens = group.peak.stride(0);
    args.sources = static_cast<int64_t>(group.rows.size());
    args.routers = routers;
    args.rows = group.rows.data();
    args.ratio = group.ratios.data();
    args.inverse = group.inverses.data();
    args.query = row(group.query, router);
    args.bias = row(group.bias, router);
  }
  template <typename C>
  void mix(const Group& group, int64_t router, int64_t routers, int64_t begin, int64_t end) const;
  // The group of the reader at `position` of `block`; two_phase, where its phase 1 is to be done.
  Group& enter(int64_t block, int64_t position, at::ScalarType type);
  void flush();
  template <typename C>
  [[nodiscard]] kernels::PartWrite<C> take_pending(Held& held);
  [[nodiscard]] static kernels::Parts parts_of(const Layout& layout, const PartRows& rows);
  template <typename C>
  [[nodiscard]] kernels::FinishBlock<C> finish_arguments(Held& held);
  template <typename C>
  [[nodiscard]] kernels::WriteRead<C> read_arguments(const Group& group, int64_t block,
                                                     int64_t position, Held& held);
  [[nodiscard]] at::Tensor read_embedding(const PreNorm& norm);
  [[nodiscard]] at::Tensor merge(int64_t block, int64_t position, const PreNorm& norm);

  template <typename C>
  void set_running(kernels::ReadBackward<C>& args, const Group& group, const Record& record,
                   int64_t block, int64_t position) const;
  void merge_backward(int64_t block, int64_t position, const PreNorm& norm, const at::Tensor& grad);
  void mix_backward(int64_t block);

  const RoutedResidual& scheme_;
  std::vector<int64_t> shape_;  // of e: B, T, d
  int64_t tokens_ = 0, d_ = 0;
  at::Tensor bank_;             // [rows, tokens, d]; rows as RoutedStream's
  at::Tensor ratio_, inverse_;  // [rows, tokens] of finished rows
  int64_t block_ = 0;           // being written
  int64_t writes_ = 0;          // to its parts, the pending one included
  PartRows parts_;              // of the block, without the pending update
  at::Tensor pending_;          // an update that is not in its part yet
  at::ScalarType update_type_ = at::kFloat;
  int64_t group_block_ = -1;         // whose readers come
  std::map<int64_t, Group> groups_;  // by block, as the backward needs them
  std::vector<Record> records_;
  // Backward.
  at::Tensor grad_;     // [rows, tokens, d]
  at::Tensor next_du_;  // of the write that write_backward will be asked for
};

}  // namespace wavroute
