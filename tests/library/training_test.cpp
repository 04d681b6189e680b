// Gradients of a batch through the public header.
#include "wavroute/training.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include "tests/library/small_text_model.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using namespace wavroute::testing;

at::Tensor bytes_of(std::initializer_list<int64_t> ids, int64_t rows) {
  return at::tensor(at::ArrayRef<int64_t>(ids), at::kLong).view({rows, -1});
}

at::Tensor all_gradients(const Decoder& model) {
  std::vector<at::Tensor> flat;
  for (const FlatGroup& group : model.parameters().groups()) flat.push_back(group.grad.flatten());
  return at::cat(flat).clone();
}

TEST(AddGradients, IsTheCrossEntropyOfTheScoredTokens) {
  const TextModel model = model_of_bytes();
  const at::Tensor ids = bytes_of({7, 8, 9, 10, 11, 12}, 2);
  const at::Tensor targets = bytes_of({8, -100, 10, 11, 12, 13}, 2);
  const at::Tensor logits = model.decoder->forward(ids, {}).logits.view({6, -1});
  const double expected = at::cross_entropy_loss(logits, targets.view({6})).item<double>();
  EXPECT_NEAR(add_gradients(*model.decoder, ids, targets).loss, expected, 1e-5);
}

TEST(AddGradients, AddsAndTakesTheWeightOfEachPart) {
  const TextModel model = model_of_bytes();
  const at::Tensor ids = bytes_of({7, 8, 9, 10, 11, 12}, 2);
  const at::Tensor targets = bytes_of({8, 9, 10, 11, 12, 13}, 2);
  add_gradients(*model.decoder, ids, targets);
  const at::Tensor whole = all_gradients(*model.decoder);
  model.decoder->parameters().zero_grad();
  GradientOptions half;
  half.weight = 0.5;
  for (int64_t row = 0; row < 2; ++row) {
    add_gradients(*model.decoder, ids.slice(0, row, row + 1), targets.slice(0, row, row + 1), half);
  }
  EXPECT_GT(whole.abs().max().item<double>(), 0.0);
  EXPECT_LT((all_gradients(*model.decoder) - whole).abs().max().item<double>(), 1e-5);
}

TEST(AddGradients, RefusesWhatIsNoBatch) {
  const TextModel model = model_of_bytes();
  const at::Tensor ids = bytes_of({7, 8, 9, 10}, 2);
  const auto refuses = [&](const at::Tensor& given, const at::Tensor& targets) {
    EXPECT_THROW(add_gradients(*model.decoder, given, targets), UserError);
  };
  refuses({}, ids);
  refuses(ids, {});
  refuses(ids.to(at::kInt), ids);
  refuses(ids, ids.view({1, 4}));
  refuses(ids, at::full_like(ids, -100));
  refuses(ids.masked_fill(ids == 9, 256), ids);
  refuses(ids, ids.masked_fill(ids == 9, -1));
}

}  // namespace
}  // namespace wavroute
