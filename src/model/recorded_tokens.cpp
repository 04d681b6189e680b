#include "model/recorded_tokens.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

namespace wavroute {
namespace {

at::Tensor copy_of(const at::Tensor& x) { return x.defined() ? x.clone() : x; }

}  // namespace

RecordedTokens::RecordedTokens(Kind kind, ops::DeviceSteps& steps, at::Device device)
    : kind_(std::move(kind)),
      steps_(steps),
      inputs_(at::zeros({2, kind_.batch}, at::TensorOptions(at::kLong).device(device))),
      mailbox_(steps.mailbox(inputs_)) {}

void RecordedTokens::record(InferenceState& state, const Run& run) {
  const std::vector<int64_t> positions = state.positions;
  state.device_positions = inputs_[1];
  try {
    recording_ = steps_.record([&] { result_ = run(inputs_[0].unsqueeze(1)); });
    // Another pass with this state opens a stream of its own.
    stream_ = std::move(state.stream);
  } catch (const c10::Error& error) {  // nothing of it has run
    state.records = false;
    state.trouble = error.what_without_backtrace();
    state.stream.reset();
    result_ = {};
  }
  state.device_positions.reset();
  state.positions = positions;
}

// The first time it runs as it is: libraries set themselves up, and a stream gathers what it keeps
// from token to token.
ForwardResult RecordedTokens::next(const at::Tensor& ids, InferenceState& state, const Run& run) {
  const bool is_steady = state.residual == nullptr || state.residual->is_steady();
  if (has_run_ && recording_ == nullptr && is_steady) record(state, run);
  if (recording_ == nullptr) {
    has_run_ = true;
    return run(ids.to(inputs_.device()));
  }
  mailbox_->wait();  // until the last token's are on the device
  const at::Tensor host = mailbox_->host();
  host[0].copy_(ids.flatten());
  std::ranges::copy(state.positions, host[1].mutable_data_ptr<int64_t>());
  for (int64_t& position : state.positions) ++position;
  mailbox_->send();
  recording_->start();
  return {copy_of(result_.logits), copy_of(result_.auxiliary), copy_of(result_.mean_depth)};
}

}  // namespace wavroute
