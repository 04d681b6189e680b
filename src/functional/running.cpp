#include "functional/running.h"

namespace wavroute::functional {

at::Tensor stream_of(const OptionalTensor& u, const OptionalTensors& parts) {
  for (const OptionalTensor& part : parts) {
    if (part) return *part;
  }
  TORCH_CHECK(u, "[wavroute] expected an update or a part, got neither");
  const auto type = u->scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  return at::empty_symint(u->sym_sizes(), u->options().dtype(type));
}

void check_running(const char* op, const OptionalTensor& u, int64_t part,
                   const OptionalTensors& parts, at::IntArrayRef forms, const at::Tensor& like) {
  const auto count = static_cast<int64_t>(parts.size());
  TORCH_CHECK(count <= 2 || count == ops::kMostParts, "[", op,
              "] expected 0, 1, 2 or 4 parts, got ", count);
  const Sizes sizes = like.sym_sizes().vec();
  if (u) {
    TORCH_CHECK(part >= 0 && part < count, "[", op, "] expected a part to write of 0 to ",
                count - 1, ", got ", part);
    expect_sizes(op, "u", *u, sizes);
  }
  for (const OptionalTensor& there : parts) {
    if (there) expect_tensor(op, "a part", *there, sizes, like.scalar_type());
  }
  const int64_t most = ops::form_count(static_cast<int>(count));
  TORCH_CHECK(static_cast<int64_t>(forms.size()) <= ops::kMostRunning, "[", op,
              "] expected at most ", ops::kMostRunning, " forms, got ", forms.size());
  for (const int64_t form : forms) {
    TORCH_CHECK(form >= 0 && form < most, "[", op, "] expected forms below ", most, " of ", count,
                " parts, got ", form);
  }
}

PresentParts::PresentParts(const OptionalTensors& all) {
  for (size_t k = 0; k < all.size(); ++k) {
    const OptionalTensor part = all.get(k);
    if (!part) continue;
    parts.push_back(*part);
    places.push_back(static_cast<int64_t>(k));
  }
}

OptionalTensors PresentParts::list(at::TensorList parts, at::IntArrayRef places, int64_t count) {
  OptionalTensors all;
  all.resize(static_cast<size_t>(count));
  for (size_t i = 0; i < parts.size(); ++i) all.set(static_cast<size_t>(places[i]), parts[i]);
  return all;
}

OptionalTensors optional_list(std::span<const at::Tensor> parts) {
  OptionalTensors all;
  for (const at::Tensor& part : parts) all.push_back(optional_of(part));
  return all;
}

ops::RunningParts packed_parts(const OptionalTensors& parts) {
  ops::RunningParts result;
  result.count = static_cast<int>(parts.size());
  for (size_t k = 0; k < parts.size(); ++k) result.row[k] = packed(parts.get(k));
  return result;
}

ops::RunningForms forms_from(at::IntArrayRef forms) {
  ops::RunningForms result;
  for (const int64_t form : forms) {
    result.form[static_cast<size_t>(result.count++)] = static_cast<int>(form);
  }
  return result;
}

ops::PartWrite write_of(const OptionalTensor& u, int64_t part, const ops::RunningParts& before,
                        const at::Tensor& after) {
  if (!u) return {};
  return {packed(u), static_cast<int>(part), before.row[static_cast<size_t>(part)], after};
}

}  // namespace wavroute::functional
