// The plan for several devices against the plans of one, and against the decoder.
#include "train/device_sizes.h"

#include <gmock/gmock.h>

#include "tests/model/small_model.h"

namespace wavroute {
namespace {

using namespace wavroute::testing;
using scaling::DevicePlan;
using scaling::DeviceShare;
using scaling::ModelSizes;

Config config_of(const std::string& scheme) {
  Config config;
  config.model.layers = 12;
  config.model.width = 64;
  config.model.heads = 4;
  config.model.kv_heads = 2;
  config.model.hidden = 192;
  config.model.context = 128;
  config.residual.scheme = scheme;
  config.train.batch = 12;
  config.train.micro_batch = 4;
  config.train.precision = Precision::kBf16;
  config.train.device = DeviceKind::kCpu;
  return config;
}

TEST(DeviceSizes, OneDeviceTakesWhatTheMemoryPlanSays) {
  for (const SchemeInfo& scheme : residual_schemes()) {
    for (const KernelChoice kernels : {KernelChoice::kFused, KernelChoice::kComposed}) {
      for (const Recompute recompute : {Recompute::kNone, Recompute::kLayer}) {
        Config config = config_of(scheme.name);
        config.train.kernels = kernels;
        config.train.recompute = recompute;
        Decoder model(decoder_spec(config, 300), *config.train.precision, at::kCPU);
        model.use_kernels(kernels);
        Machine machine;
        machine.memory_available = uint64_t{1} << 40;
        const Forecast one = forecast(model, config, machine);
        const ModelSizes sizes = model_sizes(model, config);
        const DevicePlan plan =
            scaling::plan_devices(sizes, training_on_devices(sizes, one, config), 1);
        for (const DeviceShare& share : plan.shares) {
          EXPECT_EQ(share.why_not, "");
          EXPECT_EQ(share.micro_batch, 4);
          EXPECT_NEAR(share.total(), one.memory.total(), 1.0) << scheme.name;
          EXPECT_DOUBLE_EQ(share.parameters + share.gradients + share.optimizer,
                           one.memory.parameters);
          EXPECT_EQ(share.sent, 0);
          EXPECT_EQ(share.fits, true);
        }
        EXPECT_EQ(sizes.carried.size(), 12U);
      }
    }
  }
}

TEST(DeviceSizes, CountTheDecodersParameters) {
  for (const bool tied : {false, true}) {
    Config config = config_of("wav");
    config.model.tie_embeddings = tied;
    const Decoder model(decoder_spec(config, 300), *config.train.precision, at::kCPU);
    const ModelSizes sizes = model_sizes(model, config);
    EXPECT_EQ(sizes.parameters, static_cast<double>(model.parameters().count()));
    EXPECT_EQ(sizes.embedding, 300 * 64);
    EXPECT_EQ(sizes.head + sizes.tied, 300 * 64);
    EXPECT_EQ(sizes.head, tied ? 0 : 300 * 64);
    // Attention and MLP, two norms, two routers of query, gain and two biases; the final norm, and
    // a read-out's router in the place of the first one.
    const double layer = 64 * (2 * 64 + 2 * 32) + 3 * 64 * 192 + 2 * 64 + 2 * (2 * 64 + 2);
    EXPECT_NEAR(sizes.layer_parameters(), layer + 64.0 / 12, 1e-9);
    EXPECT_EQ(sizes.kv_width, 32);
  }
}

TEST(DeviceSizes, RoutingAddsNothingToWhatDataParallelTrainingSendsButItsParameters) {
  const auto sent = [](const std::string& scheme, scaling::Strategy strategy) {
    const Config config = config_of(scheme);
    const Decoder model(decoder_spec(config, 300), *config.train.precision, at::kCPU);
    return scaling::share_of(model_sizes(model, config), {.batch = 12, .micro_batch = 1}, strategy,
                             4)
        .sent;
  };
  const double routers = 24 * (2 * 64 + 2);
  EXPECT_NEAR(sent("wav", scaling::Strategy::kZero1) - sent("prenorm", scaling::Strategy::kZero1),
              2 * 0.75 * 4 * routers, 1e-6);
  // Stages of three layers, blocks of two: the stage that begins with layer 6 is sent e and the
  // sums of three blocks; the one after it those of four, and S and P of half a block, where Q is
  // S.
  const double tensor = 4.0 * 64 * 12 * 128;
  EXPECT_EQ(sent("prenorm", scaling::Strategy::kPipeline), 2 * tensor);
  EXPECT_EQ(sent("wav", scaling::Strategy::kPipeline), ((1 + 3 * 3) + (1 + 4 * 3 + 2)) * tensor);
}

}  // namespace
}  // namespace wavroute
