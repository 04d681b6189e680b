// The back end that the tests of back ends run on: the program's.
#pragma once

#include <memory>

#include "ops/backend.h"

namespace wavroute::ops {

[[nodiscard]] std::unique_ptr<Backend> make_tested_backend();
[[nodiscard]] at::Device tested_device();

}  // namespace wavroute::ops
