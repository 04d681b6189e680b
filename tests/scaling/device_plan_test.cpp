// Plans for several devices against arithmetic by hand.
#include "scaling/device_plan.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

namespace wavroute::scaling {
namespace {

using ::testing::HasSubstr;

// 4 layers of 100 parameters, 1000 of embedding, 1000 of head; 2400 in all. A token keeps 40 bytes
// in sublayers and 8 in the stream, and 5 pass.
ModelSizes small() {
  ModelSizes m;
  m.scheme = "one";
  m.layers = 4;
  m.width = 16;
  m.kv_heads = 8;
  m.hidden = 64;
  m.context = 32;
  m.kv_width = 16;
  m.parameters = 2400;
  m.embedding = m.head = 1000;
  m.narrow = 2;
  m.kept = 40;
  m.kept_layers = 4;
  m.passing = 5;
  m.stream = 8;
  m.flops_per_token = 6 * 2400;
  m.carried = {1, 4, 7, 10};
  return m;
}

Training eight_rows(int64_t micro_batch) {
  return {.batch = 8, .micro_batch = micro_batch, .device_memory = 0, .other = 7};
}

DeviceShare share(const ModelSizes& model, Strategy strategy, int64_t devices,
                  int64_t micro_batch = 8) {
  return share_of(model, eight_rows(micro_batch), strategy, devices);
}

TEST(DevicePlan, OneDeviceIsTheSameUnderEveryStrategyAndSendsNothing) {
  for (const Strategy strategy : kStrategies) {
    const DeviceShare one = share(small(), strategy, 1);
    EXPECT_EQ(one.why_not, "");
    EXPECT_DOUBLE_EQ(one.parameters, 2400 * (4 + 2));
    EXPECT_DOUBLE_EQ(one.gradients, 2400 * 4);
    EXPECT_DOUBLE_EQ(one.optimizer, 2400 * 8);
    EXPECT_DOUBLE_EQ(one.activations, 8 * 32 * (40 + 8 + 5));
    EXPECT_DOUBLE_EQ(one.total(), 2400 * 18 + 8 * 32 * 53 + 7);
    EXPECT_EQ(one.sent, 0);
    EXPECT_EQ(one.idle, 0);
    EXPECT_DOUBLE_EQ(one.flops, 6.0 * 2400 * 8 * 32);
    EXPECT_EQ(one.passes, 1);
    EXPECT_FALSE(one.fits.has_value());
  }
}

TEST(DevicePlan, ARingSendsAllButOnePart) {
  EXPECT_DOUBLE_EQ(ring_pass(800, 4), 600);
  EXPECT_DOUBLE_EQ(ring_all_reduce(800, 4), 1200);
  EXPECT_EQ(ring_all_reduce(800, 1), 0);
}

TEST(DevicePlan, DataParallelReducesGradientsOnceAStep) {
  for (const int64_t micro_batch : {1, 2}) {
    const DeviceShare four = share(small(), Strategy::kDataParallel, 4, micro_batch);
    EXPECT_EQ(four.micro_batch, micro_batch);
    EXPECT_EQ(four.passes, 2 / micro_batch);
    EXPECT_DOUBLE_EQ(four.sent, 2 * 0.75 * 4 * 2400);
    EXPECT_DOUBLE_EQ(four.optimizer, 8 * 2400);
  }
}

TEST(DevicePlan, ZeroDividesTheMomentsAndSendsAsMuch) {
  const DeviceShare four = share(small(), Strategy::kZero1, 4);
  EXPECT_DOUBLE_EQ(four.parameters, 6 * 2400);
  EXPECT_DOUBLE_EQ(four.gradients, 4 * 2400);
  EXPECT_DOUBLE_EQ(four.optimizer, 8 * 600);
  EXPECT_DOUBLE_EQ(four.sent, 0.75 * 4 * 2400 + 0.75 * 4 * 2400);
}

TEST(DevicePlan, FullShardingDividesAllAndGathersInEveryPass) {
  const DeviceShare four = share(small(), Strategy::kFullySharded, 4, 1);
  EXPECT_EQ(four.passes, 2);
  EXPECT_DOUBLE_EQ(four.parameters, 6 * 600 + 2 * (1000 + 1000 + 2 * 100));
  EXPECT_DOUBLE_EQ(four.gradients, 4 * 600 + 4 * 100);
  EXPECT_DOUBLE_EQ(four.optimizer, 8 * 600);
  EXPECT_DOUBLE_EQ(four.sent, 2 * 0.75 * 2400 * (2 + 2 + 4));
}

TEST(DevicePlan, TensorParallelExchangesRowsOfTheWidthWhateverTheScheme) {
  ModelSizes model = small();
  const DeviceShare four = share(model, Strategy::kTensorParallel, 4, 2);
  EXPECT_EQ(four.passes, 4);
  EXPECT_DOUBLE_EQ(four.parameters, 6 * 600);
  EXPECT_DOUBLE_EQ(four.activations, 2 * 32 * (48.0 / 4 + 5));
  EXPECT_DOUBLE_EQ(four.sent, 5.0 * 8 * 0.75 * (8 * 32) * 2 * 16);  // 8 sublayers
  model.carried = {1, 1, 1, 1};
  EXPECT_EQ(share(model, Strategy::kTensorParallel, 4, 2).sent, four.sent);
}

TEST(DevicePlan, AStageIsSentWhatItsSchemeCarriesAndSendsBackItsGradient) {
  // Stages 0 and 1, 2 and 3: 7 tensors cross.
  const double tensor = 4.0 * 16 * 8 * 32;
  EXPECT_DOUBLE_EQ(share(small(), Strategy::kPipeline, 2).sent, 7 * tensor);
  EXPECT_EQ(widest_boundary(small(), 2), 7);
  // Stage 2 of 4 sends 10 on and the gradients of 7 back.
  EXPECT_DOUBLE_EQ(share(small(), Strategy::kPipeline, 4).sent, 17 * tensor);
  EXPECT_EQ(widest_boundary(small(), 4), 10);
  EXPECT_EQ(widest_boundary(small(), 1), 0);
}

TEST(DevicePlan, AStageKeepsTheMicroBatchesThatAreUnderWay) {
  const DeviceShare two = share(small(), Strategy::kPipeline, 2, 1);
  EXPECT_EQ(two.passes, 8);
  EXPECT_DOUBLE_EQ(two.idle, 1.0 / 9);
  // The first stage has two under way and was sent nothing; the last has one and 7 tensors, with
  // their gradients.
  const double first = 1200 * 18 + 32 * (2 * 24.0 + 5), received = 7 * 4 * 16;
  const double last = 1200 * 18 + 32 * (24 + received + 5 + received);
  EXPECT_DOUBLE_EQ(two.total(), std::max(first, last) + 7);
  // Recomputing layer by layer, a micro-batch that waits has no more than its stream.
  ModelSizes model = small();
  model.kept_layers = 1;
  model.carried = {1, 0, 0, 0};
  EXPECT_DOUBLE_EQ(share(model, Strategy::kPipeline, 2, 1).activations, 32 * (2 * 4.0 + 40 + 5));
}

TEST(DevicePlan, TiedEndsAreOnTwoStages) {
  ModelSizes model = small();
  model.parameters = 1400;
  model.head = 0;
  model.tied = 1000;
  const double tensor = 4.0 * 16 * 8 * 32;
  const DeviceShare two = share(model, Strategy::kPipeline, 2);
  EXPECT_DOUBLE_EQ(two.optimizer, 8 * 1200);
  EXPECT_DOUBLE_EQ(two.sent, 7 * tensor + 4 * 1000);
  EXPECT_DOUBLE_EQ(share(model, Strategy::kPipeline, 1).optimizer, 8 * 1400);
}

TEST(DevicePlan, LayersThatStagesDontDivideGoToTheFirst) {
  EXPECT_EQ(first_layer(0, 3, 8), 0);
  EXPECT_EQ(first_layer(1, 3, 8), 3);
  EXPECT_EQ(first_layer(2, 3, 8), 6);
  EXPECT_EQ(first_layer(3, 3, 8), 8);
}

TEST(DevicePlan, SaysWhatIsNotPossibleAndWhy) {
  EXPECT_THAT(share(small(), Strategy::kDataParallel, 3).why_not,
              HasSubstr("3 devices don't divide a train.batch of 8"));
  EXPECT_THAT(share(small(), Strategy::kTensorParallel, 16).why_not, HasSubstr("kv_heads of 8"));
  EXPECT_THAT(share(small(), Strategy::kPipeline, 5).why_not, HasSubstr("5 stages of 4 layers"));
  ModelSizes shared = small();
  shared.shares_layers = true;
  EXPECT_THAT(share(shared, Strategy::kPipeline, 2).why_not, HasSubstr("share layers"));
  EXPECT_EQ(share(shared, Strategy::kPipeline, 1).why_not, "");
}

TEST(DevicePlan, TakesTheMostRowsThatFit) {
  Training training = eight_rows(0);
  const double rows_of_four = 4 * 32 * 53;
  training.device_memory = 2400 * 18 + 7 + rows_of_four + 1;
  DeviceShare one = share_of(small(), training, Strategy::kDataParallel, 1);
  EXPECT_EQ(one.micro_batch, 4);
  EXPECT_EQ(one.passes, 2);
  EXPECT_EQ(one.fits, true);
  training.device_memory = 2400;
  one = share_of(small(), training, Strategy::kDataParallel, 1);
  EXPECT_EQ(one.micro_batch, 1);
  EXPECT_EQ(one.fits, false);
  EXPECT_EQ(share_of(small(), training, Strategy::kPipeline, 2).micro_batch, 1);
}

TEST(DevicePlan, APromptsKeysAndValuesAreGathered) {
  ModelSizes model = small();
  EXPECT_DOUBLE_EQ(prefill_share(model, 4).keys_and_values, 0.75 * 4 * 2 * 16 * 2 * 32);
  EXPECT_EQ(prefill_share(model, 4).scheme, 0);
  EXPECT_EQ(prefill_share(model, 1).keys_and_values, 0);
  model.earlier_positions = 7;
  EXPECT_DOUBLE_EQ(prefill_share(model, 4).scheme, 8.0 * 7 * 16 * 4);
  EXPECT_EQ(prefill_share(model, 1).scheme, 0);
}

TEST(DevicePlan, TextAndJsonSayTheSame) {
  const DevicePlan plan = plan_devices(small(), eight_rows(1), 4);
  const nlohmann::json json = device_plan_json(plan);
  ASSERT_EQ(json["strategies"].size(), kStrategies.size());
  const std::string text = device_plan_text(plan);
  for (size_t i = 0; i < kStrategies.size(); ++i) {
    EXPECT_EQ(json["strategies"][i]["strategy"], name_of(kStrategies[i]));
    EXPECT_THAT(text, HasSubstr(std::string(name_of(kStrategies[i]))));
    EXPECT_EQ(json["strategies"][i]["sent_bytes_per_step"], plan.shares[i].sent);
    EXPECT_EQ(json["strategies"][i]["total_bytes"], plan.shares[i].total());
    EXPECT_TRUE(json["strategies"][i]["fits"].is_null());
  }
  EXPECT_EQ(json["pipeline_boundaries"].size(), 3U);
  EXPECT_EQ(json["pipeline_boundaries"][1]["layer"], 2);
  EXPECT_EQ(json["pipeline_boundaries"][1]["bytes_per_token"], 7 * 16 * 4);
  EXPECT_TRUE(json["device_memory_bytes"].is_null());
  EXPECT_THAT(text, HasSubstr("at most 10 tensors"));
  EXPECT_THAT(device_plan_text(plan_devices(small(), eight_rows(1), 16)),
              HasSubstr("16 devices don't divide"));
}

}  // namespace
}  // namespace wavroute::scaling
