// AdamW (arXiv 1711.05101) over the flat buffers of a parameter table.
#pragma once

#include <ATen/core/Tensor.h>

#include <utility>
#include <vector>

#include "ops/backend.h"
#include "train/flat_part.h"
#include "wavroute/config.h"
#include "wavroute/parameters.h"

namespace wavroute {

class AdamW {
 public:
  AdamW(ParameterTable& table, const OptimizerConfig& config);
  // The same of some parts of the buffers alone: it has moments for them, and updates nothing else.
  AdamW(ParameterTable& table, const OptimizerConfig& config, std::vector<FlatPart> parts);

  // One update with grad_scale times the gradients in the table; decays the matrices alone.
  // Refreshes the copies in the compute type and leaves the gradients of its parts at zero.
  void update(ops::Backend& backend, double lr, double grad_scale = 1.0);

  // The update as part of a step on the device, of the buffers alone: updates() is the caller's.
  void update(ops::DeviceSteps& steps, const ops::StepMemory& step) const;

  // True, once, after an update that set all gradients to zero.
  [[nodiscard]] bool take_zeroed() { return std::exchange(zeroed_, false); }

  // Bias correction counts updates; a resume sets it.
  [[nodiscard]] int64_t updates() const { return updates_; }
  void set_updates(int64_t updates) { updates_ = updates; }
  [[nodiscard]] const OptimizerConfig& config() const { return config_; }
  // First and second moments, one flat buffer per group of the table, or per part.
  [[nodiscard]] const std::vector<at::Tensor>& first_moments() const { return first_; }
  [[nodiscard]] const std::vector<at::Tensor>& second_moments() const { return second_; }

 private:
  // Calls update(buffers, numbers) for every group, with what the configuration says.
  template <typename Update>
  void for_groups(const Update& update) const;

  ParameterTable& table_;
  OptimizerConfig config_;
  bool is_whole_;
  std::vector<FlatPart> parts_;
  std::vector<at::Tensor> first_, second_;
  int64_t updates_ = 0;
  bool zeroed_ = false;
};

// The 2-norm over all gradients.
[[nodiscard]] double gradient_norm(ops::Backend& backend, const ParameterTable& table);

}  // namespace wavroute
