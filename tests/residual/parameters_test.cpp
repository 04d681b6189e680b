// The flat buffers that parameters live in, and what they hold at first.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include <cmath>
#include <fstream>
#include <regex>
#include <set>

#include "base/philox.h"
#include "tests/model/small_model.h"

namespace wavroute {
namespace {

using namespace wavroute::testing;

// Three parameters, one of them fused.
struct Table {
  ParameterTable table;
  Parameter* matrix;
  Parameter* fused;
  Parameter* vector;

  explicit Table(at::ScalarType compute = at::kFloat) {
    matrix = &table.declare("matrix", {3, 5}, Decay::kYes, {0.0, 0.1});
    fused = &table.declare_fused({{"first", 0, 2, {1.0}}, {"second", 0, 4, {2.0}}}, 3, Decay::kYes);
    vector = &table.declare("vector", {7}, Decay::kNo, {3.0});
    table.allocate(at::kFloat, compute, at::kCPU, 1);
  }
};

TEST(Parameters, AreViewsOfTheFlatBuffersOfTheirGroup) {
  Table t;
  ASSERT_EQ(t.table.groups().size(), 2U);
  for (Parameter& parameter : t.table.parameters()) {
    FlatGroup& group = t.table.groups()[parameter.decay == Decay::kYes ? 0 : 1];
    ASSERT_EQ(group.decay, parameter.decay);
    group.value.fill_(5.0);
    group.grad.fill_(6.0);
    EXPECT_TRUE(parameter.value.eq(5.0).all().item<bool>());
    EXPECT_TRUE(parameter.value.grad().eq(6.0).all().item<bool>());
    const at::NoGradGuard no_grad;
    parameter.value.fill_(7.0);
    parameter.value.mutable_grad().fill_(8.0);
    EXPECT_TRUE(parameter.view(group.value).eq(7.0).all().item<bool>());
    EXPECT_TRUE(parameter.view(group.grad).eq(8.0).all().item<bool>());
  }
}

TEST(Parameters, StartAtMultiplesOf64BytesAndNeverOverlap) {
  for (const at::ScalarType compute : {at::kFloat, at::kBFloat16}) {
    Table t(compute);
    std::set<int64_t> taken;
    int64_t elements = 0;
    for (const Parameter& parameter : t.table.parameters()) {
      const auto bytes = static_cast<int64_t>(parameter.compute.element_size());
      EXPECT_EQ(parameter.offset * bytes % 64, 0);
      if (parameter.decay == Decay::kNo) continue;
      for (int64_t i = 0; i < parameter.count(); ++i) taken.insert(parameter.offset + i);
      elements += parameter.count();
    }
    EXPECT_EQ(static_cast<int64_t>(taken.size()), elements);
  }
}

TEST(Parameters, CountWithoutTheGaps) {
  const Table t;
  EXPECT_EQ(t.table.count(), 15 + 18 + 7);
  // Gaps are zero: the flat sum is the sum of the fused values and the matrix.
  const FlatGroup& group = t.table.groups()[0];
  EXPECT_GT(group.value.numel(), 33);
  const at::Tensor nonzero = group.value.ne(0.0).sum();
  EXPECT_EQ(nonzero.item<int64_t>(), 33);
}

TEST(Parameters, OfAFusedMatrixHaveTheRowsOfTheirSlices) {
  const Table t;
  const at::Tensor first = t.fused->rows(t.fused->slices[0], t.fused->value);
  const at::Tensor second = t.fused->rows(t.fused->slices[1], t.fused->value);
  EXPECT_EQ(first.sizes(), (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(second.sizes(), (std::vector<int64_t>{4, 3}));
  EXPECT_TRUE(first.eq(1.0).all().item<bool>());
  EXPECT_TRUE(second.eq(2.0).all().item<bool>());
  EXPECT_EQ(second.storage_offset(), first.storage_offset() + 6);
}

TEST(Parameters, OfASliceStartAsIfTheyStoodAlone) {
  ParameterTable alone, fused;
  Parameter& a = alone.declare("q", {2, 3}, Decay::kYes, {0.0, 0.02});
  Parameter& b =
      fused.declare_fused({{"k", 0, 5, {0.0, 0.02}}, {"q", 0, 2, {0.0, 0.02}}}, 3, Decay::kYes);
  alone.allocate(at::kFloat, at::kFloat, at::kCPU, 9);
  fused.allocate(at::kFloat, at::kFloat, at::kCPU, 9);
  EXPECT_TRUE(at::equal(b.rows(b.slices[1], b.value), a.value));
}

TEST(Parameters, StartAtTheValuesThatAreListed) {
  ParameterTable table;
  const Parameter& plain = table.declare("plain", {3}, Decay::kNo, {.values = {1.0, -2.0, 0.5}});
  const Parameter& noisy =
      table.declare("noisy", {2, 2}, Decay::kNo, {.stddev = 0.1, .values = {1.0, 2.0, 3.0, 4.0}});
  table.allocate(at::kDouble, at::kDouble, at::kCPU, 1);
  EXPECT_TRUE(at::equal(plain.value, at::tensor({1.0, -2.0, 0.5}, at::kDouble)));
  const Philox random(1, "init", "noisy");
  for (int64_t i = 0; i < 4; ++i) {
    EXPECT_EQ(noisy.value.flatten()[i].item<double>(),
              static_cast<double>(i + 1) + 0.1 * random.normal(static_cast<uint64_t>(i)));
  }
}

TEST(Parameters, OfAnyLengthHaveTheDrawsOfTheirElements) {
  ParameterTable table;
  const int64_t count = (int64_t{1} << 21) + 5;
  const Parameter& p = table.declare("long", {count}, Decay::kNo, {.stddev = 0.5});
  table.allocate(at::kDouble, at::kDouble, at::kCPU, 1);
  const Philox random(1, "init", "long");
  const auto* values = p.value.const_data_ptr<double>();
  for (int64_t i = 0; i < count; i += i < count - 20 ? 104729 : 1) {
    ASSERT_EQ(values[i], 0.5 * random.normal(static_cast<uint64_t>(i))) << i;
  }
}

size_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  size_t all = 0, resident = 0;
  statm >> all >> resident;
  return resident * static_cast<size_t>(::sysconf(_SC_PAGESIZE));
}

TEST(Parameters, TakeNoMemoryForGradientsThatNobodyWrites) {
  constexpr int64_t kCount = int64_t{1} << 24;
  const size_t before = resident_bytes();
  ParameterTable table;
  const Parameter& p = table.declare("large", {kCount}, Decay::kYes, {1.0});
  table.allocate(at::kFloat, at::kFloat, at::kCPU, 1);
  EXPECT_LT(resident_bytes() - before, size_t{5} * kCount);  // 4 bytes of a value
  EXPECT_EQ(p.value.grad()[kCount - 1].item<float>(), 0.0F);
}

TEST(Parameters, HaveACopyInTheComputeTypeThatFollowsARefresh) {
  Table t(at::kBFloat16);
  EXPECT_EQ(t.matrix->compute.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(t.vector->compute.is_same(t.vector->value));
  const at::NoGradGuard no_grad;
  t.matrix->value.fill_(1.0 + 1.0 / 1024.0);  // bf16 has 8 bits: it rounds to 1
  t.table.refresh_compute();
  EXPECT_TRUE(t.matrix->compute.eq(1.0).all().item<bool>());
}

// Of a scheme, the projections that make coefficients.
TEST(Parameters, DecayWhereTheyAreMatricesOfTheTransformerOrProjectionsOfAScheme) {
  const std::regex decayed(
      R"(lm_head\.weight|model\.embed_tokens\.weight|)"
      R"(model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj|)"
      R"((self_attn|mlp)_hc_(pre|post|res))\.weight)");
  for (const SchemeCase& c : scheme_cases()) {
    const auto model = fresh_model(small_spec(c));
    for (const Parameter& parameter : model->parameters().parameters()) {
      for (const ParameterSlice& slice : parameter.slices) {
        EXPECT_EQ(parameter.decay == Decay::kYes, std::regex_match(slice.name, decayed))
            << c.label << " " << slice.name;
      }
    }
  }
}

TEST(InitialValues, AreTheSameForWhateverTwoSchemesShare) {
  std::map<std::string, NamedTensors> models;
  for (const SchemeInfo& scheme : residual_schemes()) {
    models[scheme.name] = values_of(*fresh_model(small_spec(scheme.name), Precision::kFp32));
  }
  for (const auto& [first, a] : models) {
    for (const auto& [second, b] : models) {
      size_t shared = 0;
      for (const auto& [name, value] : a) {
        const auto other = b.find(name);
        // Of another shape: another parameter, of the same name.
        if (other == b.end() || other->second.sizes() != value.sizes()) continue;
        if (!name.ends_with("_residual_scale")) {  // each scheme has an initial value of its own
          EXPECT_TRUE(at::equal(value, other->second)) << first << " " << second << " " << name;
        }
        ++shared;
      }
      EXPECT_GE(shared, models.at("prenorm").size()) << first << " " << second;
    }
  }
}

TEST(InitialValues, FollowTheSeed) {
  const auto values = [](uint64_t seed) {
    return values_of(*fresh_model(small_spec("prenorm"), Precision::kFp32, seed));
  };
  const NamedTensors first = values(1), again = values(1), other = values(2);
  expect_equal(again, first);
  for (const auto& [name, value] : first) {
    const bool random = name.find("norm") == std::string::npos;
    EXPECT_EQ(at::equal(value, other.at(name)), !random) << name;
  }
}

TEST(InitialValues, AreKeyedByTheCheckpointNameOfEachTensor) {
  const NamedTensors values = values_of(*fresh_model(small_spec("wav"), Precision::kFp64, 7));
  for (const char* name :
       {"model.embed_tokens.weight", "model.layers.1.self_attn.k_proj.weight",
        "model.layers.2.mlp.gate_proj.weight", "model.layers.2.mlp.up_proj.weight"}) {
    const Philox random(7, "init", name);
    const at::Tensor value = values.at(name).flatten();
    for (int64_t i = 0; i < value.numel(); ++i) {
      ASSERT_EQ(value[i].item<double>(), 0.02 * random.normal(static_cast<uint64_t>(i))) << name;
    }
  }
}

TEST(InitialValues, HaveTheSpreadOfTheMethod) {
  DecoderSpec spec = small_spec("prenorm");
  spec.model.width = 64;
  spec.model.hidden = 256;
  const NamedTensors values = values_of(*fresh_model(spec, Precision::kFp32));
  const double small = 0.02 / std::sqrt(8.0);  // 1 / sqrt(2 L)
  // 4096 draws and more: the deviation of a sample is within 4 %, at 3.6 standard errors.
  const auto spread = [&](const std::string& name) {
    return values.at("model.layers.2." + name + ".weight").square().mean().sqrt().item<double>();
  };
  EXPECT_NEAR(spread("mlp.gate_proj"), 0.02, 0.04 * 0.02);
  EXPECT_NEAR(spread("self_attn.q_proj"), 0.02, 0.04 * 0.02);
  EXPECT_NEAR(spread("self_attn.o_proj"), small, 0.04 * small);
  EXPECT_NEAR(spread("mlp.down_proj"), small, 0.04 * small);
}

TEST(InitialValues, OutputInitIsTheDeviationOfTheTwoOutputProjectionsAlone) {
  const auto values = [](std::optional<double> output_init) {
    DecoderSpec spec = small_spec("prenorm");
    spec.model.output_init = output_init;
    return values_of(*fresh_model(spec));
  };
  const NamedTensors automatic = values(std::nullopt);
  expect_equal(values(0.02 / std::sqrt(8.0)), automatic);  // 4 layers
  const double ratio = 4.0;                                // a power of two: the same bits
  for (const auto& [name, value] : values(ratio * (0.02 / std::sqrt(8.0)))) {
    const bool is_output = name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
    EXPECT_TRUE(at::equal(value, automatic.at(name) * (is_output ? ratio : 1.0))) << name;
  }
  for (const auto& [name, value] : values(0.0)) {
    if (!name.ends_with("o_proj.weight")) continue;
    EXPECT_EQ(value.count_nonzero().item<int64_t>(), 0) << name;
  }
}

TEST(ParameterTable, WithoutASeedHasZerosToReadValuesInto) {
  ParameterTable table;
  const Parameter& matrix = table.declare("m", {3, 4}, Decay::kYes, {0.0, 1.0});
  const Parameter& gain = table.declare("g", {4}, Decay::kNo, {1.0});
  table.allocate(at::kFloat, at::kBFloat16, at::kCPU, std::nullopt);
  EXPECT_EQ(matrix.value.count_nonzero().item<int64_t>(), 0);
  EXPECT_EQ(matrix.compute.count_nonzero().item<int64_t>(), 0);
  EXPECT_EQ(gain.value.count_nonzero().item<int64_t>(), 0);
}

}  // namespace
}  // namespace wavroute
