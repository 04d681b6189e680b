// The routed stream on a back end's route operators (ops/route.h): what BankStream computes,
// without returning to an earlier layer; with records, every layer runs once. Sums, scalars and
// their gradients are float; mixtures of finished sources and the gradients of h are of the norm's
// type, one for all readers of a block.
//
// Forward, a block: phase 1 mixes the finished sources for all of its routers at once, where that
// is faster than router by router. A write is deferred to the read after it: both are one pass.
// The running block is kept as parts: a write makes one new row, and if there will be a backward,
// rows that a reader used don't change.
// Backward, a block: from the last sublayer to the first every reader's share of the gradients of
// the running sums is collected; then the finished sources take the gradients of all of the block's
// readers in one pass.
#pragma once

#include <array>
#include <map>
#include <optional>
#include <vector>

#include "ops/backend.h"
#include "residual/normed_stream.h"
#include "residual/routed.h"

namespace wavroute {

class PartsStream final : public NormedStream {
 public:
  PartsStream(const RoutedResidual& scheme, const StreamOptions& options);

  void begin(const at::Tensor& embedding) override;
  // The next tokens of a sequence: the bank and what the readers of a block gathered are kept.
  [[nodiscard]] bool can_begin_again(const StreamOptions& options) const override;
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

 protected:
  [[nodiscard]] at::ScalarType storage() const override { return at::kFloat; }

 private:
  // Routers that read the same finished sources: those of a block, or only the read-out's.
  struct Readers {
    ops::RouterGroup group;
    std::vector<ops::RouterParameters> parameters;  // of each router
    std::vector<int64_t> sums;  // of each source: which sum of its block it is (0: a summary)
    bool two_phase = false;
    bool mixed_all = false;  // phase 1 of all is done, in two phases
    [[nodiscard]] int64_t count() const { return static_cast<int64_t>(parameters.size()); }
  };
  // By slot: parts of a block, [tokens, d] float. Undefined: no update yet.
  using PartRows = std::array<at::Tensor, ops::kMostParts>;
  // What a recorded read keeps.
  struct Record {
    at::Tensor h;            // [tokens, d] in the norm's type; in float where it is e
    at::Tensor inverse_rms;  // [tokens]
    PartRows parts;          // that it used
  };
  // The set of a block's parts that were written to: bit k is slot k.
  using Slots = unsigned;
  // Which parts of a block the operators get, in their order, and the form that each of its sums
  // then is.
  struct Arrangement {
    int count = 0;
    std::array<int, ops::kMostParts> slot = {};
    std::array<int, ops::kMostRunning> form = {};
  };

  [[nodiscard]] const Blocks& blocks() const { return scheme_.spec().blocks; }
  [[nodiscard]] ops::RouteEps eps() const {
    return {scheme_.spec().norm_eps, scheme_.spec().matching_eps};
  }
  // Running sums of a block: S and its details.
  [[nodiscard]] int64_t sums() const {
    return static_cast<int64_t>(scheme_.spec().details.size()) + 1;
  }
  [[nodiscard]] int64_t first_row(int64_t block) const { return 1 + block * sums(); }
  // Of a block's sums in a list of the bank's rows.
  [[nodiscard]] static const at::Tensor& at_row(const std::vector<at::Tensor>& rows, int64_t row) {
    return rows[static_cast<size_t>(row)];
  }
  [[nodiscard]] Site site_at(int64_t block, int64_t position) const {
    return Site::at(block * blocks().length + position);
  }
  // The sign of update `position` of a block in running sum `sum`.
  [[nodiscard]] float sign(int64_t block, int64_t position, int64_t sum) const;
  // The slot of the part that the update goes to: bit s - 1 is set where its sign in sum s is -1.
  [[nodiscard]] int slot(int64_t block, int64_t position) const;
  // After the first `writes` writes of a block, where every layer runs once.
  [[nodiscard]] Slots slots_after(int64_t block, int64_t writes) const {
    return slots_after_[static_cast<size_t>(block * (blocks().length + 1) + writes)];
  }
  [[nodiscard]] const Arrangement& arrangement(int64_t block, int64_t writes) const {
    return arrangements_[slots_after(block, writes)];
  }
  [[nodiscard]] Arrangement make_arrangement(Slots written) const;
  // The sum that collects the gradient of a form: the first one that is this form.
  [[nodiscard]] static int owner(const Arrangement& arrangement, int form);
  // The running sources of a reader.
  [[nodiscard]] ops::RunningForms sources_of(const Arrangement& arrangement) const;
  [[nodiscard]] static ops::RunningParts parts_of(const Arrangement& arrangement,
                                                  const PartRows& rows);

  // Block blocks().count is the read-out's.
  [[nodiscard]] Readers make_readers(int64_t block) const;
  // The readers of `block`, as the one at `position` finds them; sets two_phase if phase 1 is done
  // for the whole block.
  Readers& enter(int64_t block, int64_t position, at::ScalarType type);
  void flush();
  [[nodiscard]] ops::PartWrite take_pending();
  [[nodiscard]] ops::BlockEnd end_block(at::ScalarType type);
  [[nodiscard]] at::Tensor read_embedding(const PreNorm& norm);
  [[nodiscard]] at::Tensor merge(int64_t block, int64_t position, const PreNorm& norm);

  void collect_forms(ops::RunningReadBackward& read, const Record& record, int64_t block,
                     int64_t position) const;
  void merge_backward(int64_t block, int64_t position, const PreNorm& norm, const at::Tensor& grad);
  void mix_backward(int64_t block);

  const RoutedResidual& scheme_;
  ops::RouteOperators& routes_;
  ops::Memory& memory_;
  std::vector<Slots> slots_after_;         // [blocks, 1 + sublayers of one]
  std::vector<Arrangement> arrangements_;  // by set of slots
  std::vector<int64_t> shape_;             // of e: B, T, d
  int64_t tokens_ = 0, d_ = 0;
  std::vector<at::Tensor> bank_;  // of [tokens, d]: e, then of each block S and its details
  at::Tensor ratio_, inverse_;    // [rows, tokens] of finished rows
  int64_t rows_ = 0;              // of it that are finished: e and the sums of blocks
  int64_t block_ = 0;             // being read and written
  int64_t writes_ = 0;            // to its parts, the pending one included
  Slots written_ = 0;             // that these went to
  PartRows parts_;                // of the block, without the pending update
  at::Tensor pending_;            // an update that is not in its part yet
  int pending_slot_ = 0;
  at::ScalarType update_type_ = at::kFloat;
  int64_t readers_block_ = -1;  // whose readers are next
  // By block: this one's, those that the backward needs, all of a pass of few tokens.
  std::map<int64_t, Readers> readers_;
  std::vector<Record> records_;
  // Backward.
  std::vector<at::Tensor> grad_;  // of the bank's rows
  at::Tensor next_du_;            // for the next call of write_backward
};

}  // namespace wavroute
