// The scalars of a finished source for its readers: matching ratio and inverse rms.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <tuple>

#include "functional/composed.h"
#include "functional/operators.h"
#include "ops/route.h"
#include "wavroute/functional.h"

namespace wavroute::functional {
namespace {

using Result = std::tuple<at::Tensor, at::Tensor>;
constexpr char kName[] = "source_scalars";

void check(const at::Tensor& row, const OptionalTensor& summary) {
  expect_dimensions(kName, "row", row, 2);
  if (summary) {
    expect_tensor(kName, "summary", *summary, row.sym_sizes().vec(), row.scalar_type());
  }
}

Result composed_or_checked(const at::Tensor& row, const OptionalTensor& summary, double norm_eps,
                           double matching_eps) {
  check(row, summary);
  return composed::source_scalars(row, summary, norm_eps, matching_eps);
}

Result cpu(const at::Tensor& row_in, const OptionalTensor& summary_in, double norm_eps,
           double matching_eps) {
  const at::ScalarType type = row_in.scalar_type();
  if (type != at::kFloat && type != at::kBFloat16) {
    return composed_or_checked(row_in, summary_in, norm_eps, matching_eps);
  }
  check(row_in, summary_in);
  const at::Tensor row = row_in.contiguous(), summary = summary_in ? packed(summary_in) : row;
  const int64_t tokens = row.size(0);
  const at::Tensor ratio = at::empty({tokens}, row.options().dtype(at::kFloat));
  const at::Tensor inverse = at::empty_like(ratio);
  ops::source_scalars(row, summary, {norm_eps, matching_eps}, ratio, inverse);
  return {ratio, inverse};
}

Result meta(const at::Tensor& row, const OptionalTensor& summary, double, double) {
  check(row, summary);
  const auto type = row.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor ratio = at::empty_symint({row.sym_size(0)}, row.options().dtype(type));
  return {ratio, at::empty_symint({row.sym_size(0)}, ratio.options())};
}

// The ratio is a constant for every gradient; the inverse's gradient is part of route_mix's.
Result autograd(const at::Tensor& row, const OptionalTensor& summary, double norm_eps,
                double matching_eps) {
  const at::AutoDispatchBelowADInplaceOrView below;
  static const auto op = find_operator<decltype(cpu)>("wavroute::source_scalars");
  return op.call(row, summary, norm_eps, matching_eps);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(wavroute, m) {
  m.def(
      "source_scalars(Tensor row, Tensor? summary, float norm_eps, float matching_eps) -> "
      "(Tensor ratio, Tensor inverse)");
}
TORCH_LIBRARY_IMPL(wavroute, CPU, m) { m.impl("source_scalars", TORCH_FN(cpu)); }
TORCH_LIBRARY_IMPL(wavroute, Meta, m) { m.impl("source_scalars", TORCH_FN(meta)); }
TORCH_LIBRARY_IMPL(wavroute, CompositeExplicitAutograd, m) {
  m.impl("source_scalars", TORCH_FN(composed_or_checked));
}
TORCH_LIBRARY_IMPL(wavroute, Autograd, m) { m.impl("source_scalars", TORCH_FN(autograd)); }

SourceScalars source_scalars(const at::Tensor& row, const at::Tensor& summary, const Eps& eps) {
  static const auto op = find_operator<decltype(cpu)>("wavroute::source_scalars");
  auto [ratio, inverse] = op.call(row, optional_of(summary), eps.norm, eps.matching);
  return {std::move(ratio), std::move(inverse)};
}

}  // namespace wavroute::functional
