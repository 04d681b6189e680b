#include "residual/bank_stream.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "residual/coefficients.h"

namespace wavroute {
namespace {

// row += sign * update; a sum's first update is copied.
void accumulate(const at::Tensor& row, const at::Tensor& update, double sign, bool first) {
  if (!first) {
    row.add_(update, sign);
    return;
  }
  row.copy_(update);
  if (sign != 1.0) row.mul_(sign);
}

}  // namespace

BankStream::BankStream(const RoutedResidual& scheme, const StreamOptions& options)
    : Stream(options), scheme_(scheme) {}

int64_t BankStream::rows_per_block() const {
  return 1 + static_cast<int64_t>(scheme_.spec().details.size());
}

void BankStream::begin(const at::Tensor& embedding) {
  const at::NoGradGuard no_grad;
  std::vector<int64_t> shape = embedding.sizes().vec();
  shape.insert(shape.begin(), first_row(scheme_.spec().blocks.count));
  bank_ = at::empty(shape, embedding.options());
  bank_[0].copy_(embedding);
  shape.pop_back();
  power_ = at::empty(shape, embedding.options());
  power_[0].copy_(embedding.square().mean(-1));
  std::vector<int> bases;
  std::vector<int64_t> summaries;
  for (int64_t row = 0; row < bank_.size(0); ++row) {
    const int64_t place = row == 0 ? 0 : (row - 1) % rows_per_block();
    bases.push_back(static_cast<int>(place) - 1);
    summaries.push_back(row - place);
  }
  kinds_ = row_kinds(bases, summaries, rows_per_block() - 1, backend());
  filled_.assign(static_cast<size_t>(scheme_.spec().blocks.count), 0);
}

BankStream::Selection BankStream::select(const std::optional<Site>& site) const {
  Selection selection{{0}, {-1}, {0}, {-1}};
  if (site && site->index() == 0) return selection;
  const RoutedSpec& spec = scheme_.spec();
  const int64_t own = site ? spec.blocks.block_of(site->index()) : -1;
  const auto put = [&](int64_t row, int basis, int64_t summary, int64_t block) {
    selection.rows.push_back(row);
    selection.bases.push_back(basis);
    selection.summaries.push_back(summary);
    selection.blocks.push_back(block);
  };
  for (int64_t block = 0; block < spec.blocks.count; ++block) {
    if (filled_[static_cast<size_t>(block)] == 0) continue;  // an empty sum is no source
    const auto summary = static_cast<int64_t>(selection.rows.size());
    put(first_row(block), -1, summary, block);
    if (block == own && !spec.partial_details) continue;
    for (int basis = 0; basis < static_cast<int>(spec.details.size()); ++basis) {
      put(first_row(block) + 1 + basis, basis, summary, block);
    }
  }
  return selection;
}

// The selected rows of `all` [rows, ...]: a view where nothing was left out, else a copy (a layer
// program that skips a block).
at::Tensor BankStream::chosen_of(const at::Tensor& all, const Selection& selection) const {
  const auto count = static_cast<int64_t>(selection.rows.size());
  if (selection.is_prefix()) return all.narrow(0, 0, count);
  return all.index_select(0, backend().numbers(selection.rows));
}

RowKinds BankStream::kinds_of(const Selection& selection) const {
  if (selection.is_prefix()) return kinds_.first(static_cast<int64_t>(selection.rows.size()));
  return row_kinds(selection.bases, selection.summaries, rows_per_block() - 1, backend());
}

RowScalars BankStream::scalars_of(const std::optional<Site>& site, const Selection& selection,
                                  const RowKinds& kinds, const at::Tensor& rows) const {
  return row_scalars(rows, chosen_of(power_, selection), kinds, scheme_.router(site),
                     scheme_.spec().norm_eps, scheme_.spec().matching_eps);
}

void BankStream::tell_taps(const std::optional<Site>& site, const Selection& selection,
                           const at::Tensor& weights) const {
  const RoutedSpec& spec = scheme_.spec();
  std::vector<SourceLabel> labels;
  for (size_t j = 0; j < selection.rows.size(); ++j) {
    const int64_t block = selection.blocks[j] + 1;
    const int basis = selection.bases[j];
    if (block == 0) {
      labels.push_back({"e", "embedding", 0});
    } else if (basis < 0) {
      labels.push_back({spec.summary_symbol + std::to_string(block), "summary", block});
    } else {
      const DetailBasis& detail = spec.details[static_cast<size_t>(basis)];
      labels.push_back({detail.symbol + std::to_string(block), detail.type, block});
    }
  }
  options_.taps->on_weights(site, labels, weights);
}

at::Tensor BankStream::mix_selected(const std::optional<Site>& site) {
  const at::NoGradGuard no_grad;
  const Selection selection = select(site);
  // Row 0 is never written again, but autograd counts writes to the whole bank: variable_data()
  // gives the row a count of its own.
  at::Tensor h = bank_[0].variable_data();
  at::Tensor weights;
  if (selection.rows.size() > 1) {
    const at::Tensor rows = chosen_of(bank_, selection);
    h = mix_rows(rows, coefficients_of(options_, {.tokens = true}, [&] {
                   const RowScalars scalars =
                       scalars_of(site, selection, kinds_of(selection), rows);
                   weights = scalars.weight;
                   return std::vector<at::Tensor>{scalars.weight * scalars.ratio};
                 })[0]);
  }
  if (options_.taps != nullptr) {
    tell_taps(site, selection, weights.defined() ? weights : at::ones_like(power_.narrow(0, 0, 1)));
  }
  return h;
}

void BankStream::mix_backward(const std::optional<Site>& site, const at::Tensor& grad) {
  const at::NoGradGuard no_grad;
  const Selection selection = select(site);
  if (selection.rows.size() == 1) {
    grad_[0].add_(grad);
    return;
  }
  const at::Tensor rows = chosen_of(bank_, selection);
  const at::Tensor row_grads =
      selection.is_prefix() ? chosen_of(grad_, selection) : at::zeros_like(rows);
  const RowKinds kinds = kinds_of(selection);
  mix_rows_backward(rows, scalars_of(site, selection, kinds, rows), kinds, scheme_.router(site),
                    grad, row_grads);
  if (!selection.is_prefix()) {
    grad_.index_add_(0, backend().numbers(selection.rows), row_grads);
  }
}

at::Tensor BankStream::read(const Site& site) { return mix_selected(site); }

at::Tensor BankStream::read_out() { return mix_selected(std::nullopt); }

void BankStream::add(const Site& site, const at::Tensor& update) {
  const at::NoGradGuard no_grad;
  const RoutedSpec& spec = scheme_.spec();
  const int64_t block = spec.blocks.block_of(site.index());
  int64_t& filled = filled_[static_cast<size_t>(block)];
  const int64_t row = first_row(block);
  accumulate(bank_[row], update, 1.0, filled == 0);
  for (size_t basis = 0; basis < spec.details.size(); ++basis) {
    const double sign = spec.details[basis].sign(site, spec.blocks.position_of(site.index()),
                                                 spec.blocks.length_of(block));
    accumulate(bank_[row + 1 + static_cast<int64_t>(basis)], update, sign, filled == 0);
  }
  ++filled;
}

void BankStream::measure_power(int64_t block) {
  const at::NoGradGuard no_grad;
  const at::Tensor rows = bank_.narrow(0, first_row(block), rows_per_block());
  const at::Tensor power = power_.narrow(0, first_row(block), rows_per_block());
  if (rows.is_cpu()) {  // row by row, as in router.cpp
    for (int64_t i = 0; i < rows.size(0); ++i) power[i].copy_(rows[i].square().mean(-1));
  } else {
    power.copy_(rows.square().mean(-1));
  }
}

void BankStream::write(const Site& site, const at::Tensor& update) {
  add(site, update);
  measure_power(scheme_.spec().blocks.block_of(site.index()));
  current_ = scheme_.spec().blocks.block_of(site.index());
  if (record_) records_.push_back({site, update});
}

void BankStream::read_out_backward(const at::Tensor& grad, double) {
  grad_ = at::zeros_like(bank_);
  mix_backward(std::nullopt, grad);
}

void BankStream::remember_prefixes(int64_t block) {
  // Sums are walked backwards by running them forwards again: subtracting would not give back the
  // bits that the forward read.
  const Blocks& blocks = scheme_.spec().blocks;
  size_t first = records_.size();
  while (first > 0 && blocks.block_of(records_[first - 1].site.index()) == block) --first;
  at::Tensor rows = bank_.narrow(0, first_row(block), rows_per_block());
  int64_t& filled = filled_[static_cast<size_t>(block)];
  filled = 0;
  if (block == restored_block_) {
    rows.copy_(restored_);
    filled = restored_filled_;
  }
  prefixes_.clear();
  for (size_t i = 0; i < records_.size(); ++i) {
    if (blocks.block_of(records_[i].site.index()) != block) continue;
    if (i >= first) prefixes_.push_back(filled == 0 ? at::Tensor() : rows.clone());
    add(records_[i].site, records_[i].update);
  }
  prefix_block_ = block;
}

at::Tensor BankStream::write_backward(const Site& site) {
  const at::NoGradGuard no_grad;
  const RoutedSpec& spec = scheme_.spec();
  const int64_t block = spec.blocks.block_of(site.index());
  if (prefix_block_ != block || prefixes_.empty()) remember_prefixes(block);
  const at::Tensor update = records_.back().update;
  records_.pop_back();

  const int64_t row = first_row(block);
  at::Tensor grad = grad_[row].clone();
  for (size_t basis = 0; basis < spec.details.size(); ++basis) {
    grad.add_(grad_[row + 1 + static_cast<int64_t>(basis)],
              spec.details[basis].sign(site, spec.blocks.position_of(site.index()),
                                       spec.blocks.length_of(block)));
  }
  if (prefixes_.back().defined()) {
    bank_.narrow(0, row, rows_per_block()).copy_(prefixes_.back());
    measure_power(block);
  }
  prefixes_.pop_back();
  --filled_[static_cast<size_t>(block)];
  return grad.to(update.scalar_type());
}

void BankStream::read_backward(const Site& site, const at::Tensor& grad) {
  mix_backward(site, grad);
}

at::Tensor BankStream::begin_backward() { return grad_[0]; }

StreamSnapshot BankStream::snapshot() {
  const at::NoGradGuard no_grad;
  StreamSnapshot result = {at::tensor(filled_, at::kLong), at::scalar_tensor(current_, at::kLong)};
  if (current_ >= 0) {
    result.push_back(bank_.narrow(0, first_row(current_), rows_per_block()).clone());
  }
  return result;
}

void BankStream::restore(const StreamSnapshot& snapshot) {
  const at::NoGradGuard no_grad;
  const int64_t* filled = snapshot[0].const_data_ptr<int64_t>();
  filled_.assign(filled, filled + snapshot[0].numel());
  current_ = snapshot[1].item<int64_t>();
  restored_block_ = current_;
  if (current_ >= 0) {
    restored_ = snapshot[2];
    restored_filled_ = filled_[static_cast<size_t>(current_)];
    bank_.narrow(0, first_row(current_), rows_per_block()).copy_(restored_);
    measure_power(current_);
  }
  records_.clear();
  prefixes_.clear();
  prefix_block_ = -1;
}

}  // namespace wavroute
