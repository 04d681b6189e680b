// Processes that torch.distributed connects: Gloo for the CPU, NCCL for GPUs.
#pragma once

#include <memory>
#include <string>

#include "train/processes.h"

namespace wavroute {

// The process group that Python made under this name (`ProcessGroup.group_name`); it must know a
// back end for the CPU. UserError where there is none.
[[nodiscard]] std::unique_ptr<Processes> join_process_group(const std::string& name);

// What torch.distributed said when another process was found gone; empty: nothing yet.
[[nodiscard]] std::string process_group_trouble();

}  // namespace wavroute
