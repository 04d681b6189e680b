// The operators on a GPU, where the composed forms serve, against the CPU. Skipped where there is
// no GPU.
#include "tests/functional/support.h"

namespace wavroute::functional {
namespace {

constexpr int64_t kSources = 4, kTokens = 5, kWidth = 37;
const Eps kEps = {1e-5, 1e-12};

// Every operator once: the sources' rows, then the arguments in the order of their names below.
Tensors all_operators(const Tensors& a, const Sources& sources) {
  const at::Device device = a[0].device();
  const at::TensorList rows = at::TensorList(a).slice(0, kSources);
  const at::Tensor &queries = a[4], &bias = a[5], &u = a[6], &running_bias = a[7], &gain = a[8],
                   &scale = a[9];
  const Parts parts = {a[10], a[11]};
  const Mixture mixture =
      route_mix(rows, sources.ratio.to(device), sources.inverse.to(device), queries, bias);
  const Read read =
      route_read(u, 1, parts, {0, 1}, mixture.unbind()[0], {queries[0], running_bias, gain}, kEps);
  const Finished finished = route_finish(u, 0, parts, {0, 1}, kEps);
  const Normed normed = add_norm(read.part, read.x, gain, kEps.norm, scale, 0.5);
  return {mixture.mixed,    mixture.mass, read.part, read.x,         finished.rows[0],
          finished.rows[1], normed.h,     normed.x,  finished.ratio, finished.inverse};
}

TEST(OnGpu, TheOperatorsHaveTheValuesAndGradientsOfTheCpu) {
  if (!at::hasCUDA()) GTEST_SKIP() << "libtorch sees no GPU";
  const Sources sources = random_sources(kSources, kTokens, kWidth, kEps);
  Tensors arguments = sources.rows;
  const std::vector<std::pair<const char*, std::vector<int64_t>>> others = {
      {"queries", {2, kWidth}}, {"bias", {2, kSources}}, {"u", {kTokens, kWidth}},
      {"running_bias", {2}},    {"gain", {kWidth}},      {"scale", {kWidth}},
      {"a", {kTokens, kWidth}}, {"b", {kTokens, kWidth}}};
  for (const auto& [name, sizes] : others) arguments.push_back(random_values(sizes, name));
  const auto on = [&](at::Device device, at::ScalarType type) {
    Tensors there;
    for (const at::Tensor& argument : arguments) there.push_back(argument.to(device, type));
    Sources of = sources;
    of.ratio = sources.ratio.to(type);
    of.inverse = sources.inverse.to(type);
    return run([&](const Tensors& a) { return all_operators(a, of); }, there);
  };
  const Outcome expected = on(at::kCPU, at::kDouble);
  expect_close(on(at::Device(at::kCUDA, 0), at::kDouble), expected, 1e-11);
  expect_close(on(at::Device(at::kCUDA, 0), at::kFloat), expected, 2e-5);
}

}  // namespace
}  // namespace wavroute::functional
