// The programs that `python -m wavroute.sink` forwards metrics.jsonl to.
#pragma once

#include <string>
#include <vector>

namespace wavroute {

// What train.sinks may have, under the names of their Python modules.
[[nodiscard]] inline std::vector<std::string> sink_names() {
  return {"tensorboard", "wandb", "trackio", "mlflow"};
}

}  // namespace wavroute
