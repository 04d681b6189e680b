// A training that takes a moment.
#pragma once

#include <filesystem>
#include <string>

#include "wavroute/config.h"

namespace wavroute::testing {

// Two layers of width 16 under `scheme`, `steps` steps of two rows of eight tokens, on train.txt
// and valid.txt of `folder`, in fp32 on one thread; without samples.
inline Config small_run(const std::filesystem::path& folder, const std::string& scheme,
                        int64_t steps) {
  Config config;
  config.name = "small";
  config.residual.scheme = scheme;
  config.model = {.layers = 2, .width = 16, .heads = 2, .hidden = 32, .context = 8};
  config.data.train = (folder / "train.txt").string();
  config.data.valid = (folder / "valid.txt").string();
  config.data.eval_tokens = 32;
  config.optimizer.lr = 0.01;
  config.train.steps = steps;
  config.train.batch = 2;
  config.train.precision = Precision::kFp32;
  config.train.device = DeviceKind::kCpu;
  config.train.threads = 1;
  config.sample.tokens = 0;
  return config;
}

}  // namespace wavroute::testing
