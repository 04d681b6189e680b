// What the routed schemes share: a bank of block sums, and a router before every sublayer.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "residual/blocks.h"
#include "residual/router.h"
#include "wavroute/residual.h"

namespace wavroute {

// A zero-sum signed sum of a block's updates: the coefficient of update `position` (from 0) of a
// block of `length` sublayers.
struct DetailBasis {
  std::string type;    // "phase", "split"
  std::string symbol;  // "P", "Q"
  double (*sign)(const Site& site, int64_t position, int64_t length);
};

[[nodiscard]] DetailBasis phase_basis();  // +1 attention, -1 MLP
[[nodiscard]] DetailBasis split_basis();  // +1 in the first half of the block, -1 after

struct RoutedSpec {
  Blocks blocks;
  std::vector<DetailBasis> details;
  std::string summary_symbol = "S";
  bool partial_details = true;  // the running block offers its details too
  double beta = -4.0;           // initial bias of a detail [ours]
  double matching_eps = 1e-12;  // [ours]
  double norm_eps = 1e-6;
  bool takes_programs = true;
};

class RoutedResidual final : public Residual {
 public:
  // `options`: what options() answers.
  RoutedResidual(RoutedSpec spec, Options options, const ModelSize& size);

  void declare(ParameterTable& table) override;
  [[nodiscard]] std::unique_ptr<Stream> open(const StreamOptions& options) const override;
  [[nodiscard]] int64_t block_length() const override { return spec_.blocks.length; }
  void check_program() const override;
  [[nodiscard]] double kept_states() const override;
  [[nodiscard]] Options options(const Progress&) const override { return options_; }

  [[nodiscard]] const RoutedSpec& spec() const { return spec_; }
  // The router before `site`, or of the read-out. Sublayer 1 has none (null query).
  [[nodiscard]] const Router& router(const std::optional<Site>& site) const;

 private:
  RoutedSpec spec_;
  Options options_;
  ModelSize size_;
  std::vector<Router> routers_;  // by Site::index(); the last one is the read-out's
};

// The bank holds, for every block, the raw sums of its updates, finished or running alike:
// row 0 = e; row 1 + n (1 + details) = S of block n, its details after it. A detail is matched to
// its summary when it is read.
class RoutedStream final : public Stream {
 public:
  RoutedStream(const RoutedResidual& scheme, const StreamOptions& options);

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

// Shared by the scheme files.
[[nodiscard]] OptionSpec partial_details_option();
[[nodiscard]] OptionSpec beta_option();
[[nodiscard]] OptionSpec matching_epsilon_option();

// A scheme over blocks with these details; `specs` are the options of the scheme `scheme`.
[[nodiscard]] std::unique_ptr<Residual> make_routed(const Options& given,
                                                    const std::vector<OptionSpec>& specs,
                                                    const std::string& scheme,
                                                    const ModelSize& size, double norm_eps,
                                                    std::vector<DetailBasis> details);

}  // namespace wavroute
