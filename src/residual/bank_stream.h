// The routed stream on stock operators: any device, type and layer program, and taps.
#pragma once

#include <optional>
#include <vector>

#include "residual/routed.h"
#include "residual/router.h"

namespace wavroute {

// The bank holds, for every block, the raw sums of its updates, finished or running alike:
// row 0 = e; row 1 + n (1 + details) = S of block n, its details after it. A detail is matched to
// its summary when it is read.
class BankStream final : public Stream {
 public:
  BankStream(const RoutedResidual& scheme, const StreamOptions& options);

  void begin(const at::Tensor& embedding) override;
  [[nodiscard]] at::Tensor read(const Site& site) override;
  void write(const Site& site, const at::Tensor& update) override;
  [[nodiscard]] at::Tensor read_out() override;

  void read_out_backward(const at::Tensor& grad, double auxiliary_grad) override;
  [[nodiscard]] at::Tensor write_backward(const Site& site) override;
  void read_backward(const Site& site, const at::Tensor& grad) override;
  [[nodiscard]] at::Tensor begin_backward() override;

  [[nodiscard]] StreamSnapshot snapshot() override;
  void restore(const StreamSnapshot& snapshot) override;

 private:
  // The rows of the bank that a read mixes, in their order.
  struct Selection {
    std::vector<int64_t> rows;
    std::vector<int> bases;          // -1: a summary
    std::vector<int64_t> summaries;  // the place in this selection of a detail's summary
    std::vector<int64_t> blocks;     // -1: the embedding
    [[nodiscard]] bool is_prefix() const {
      return rows.back() + 1 == static_cast<int64_t>(rows.size());
    }
  };
  struct Record {
    Site site;
    at::Tensor update;
  };

  [[nodiscard]] int64_t rows_per_block() const;
  [[nodiscard]] int64_t first_row(int64_t block) const { return 1 + block * rows_per_block(); }
  [[nodiscard]] Selection select(const std::optional<Site>& site) const;
  [[nodiscard]] at::Tensor chosen_of(const at::Tensor& all, const Selection& selection) const;
  [[nodiscard]] RowKinds kinds_of(const Selection& selection) const;
  [[nodiscard]] RowScalars scalars_of(const std::optional<Site>& site, const Selection& selection,
                                      const RowKinds& kinds, const at::Tensor& rows) const;
  void tell_taps(const std::optional<Site>& site, const Selection& selection,
                 const at::Tensor& weights) const;
  [[nodiscard]] at::Tensor mix_selected(const std::optional<Site>& site);
  void mix_backward(const std::optional<Site>& site, const at::Tensor& grad);
  void add(const Site& site, const at::Tensor& update);
  void measure_power(int64_t block);
  void remember_prefixes(int64_t block);

  const RoutedResidual& scheme_;
  at::Tensor bank_;              // [rows, B, T, d]
  at::Tensor power_;             // [rows, B, T] mean square of every row
  RowKinds kinds_;               // of every row
  at::Tensor grad_;              // [rows, B, T, d], in the backward
  std::vector<int64_t> filled_;  // updates in each block's sums
  int64_t current_ = -1;         // block of the last write
  std::vector<Record> records_;
  // Backward: the bank's rows of block `prefix_block_` before each of its recorded writes, and
  // what they held before the first of them.
  int64_t prefix_block_ = -1;
  std::vector<at::Tensor> prefixes_;
  at::Tensor restored_;  // rows of block restored_block_ at the last restore()
  int64_t restored_block_ = -1;
  int64_t restored_filled_ = 0;
};

}  // namespace wavroute
