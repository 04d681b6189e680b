// The back end `cuda` on the emulator of its kernels (kernels/cuda/emulator.h), over tensors of the
// CPU: the host code of a GPU without one. Attention and products are stock operators, and a
// recording is a tape (tape.h).
#pragma once

#include <memory>

#include "ops/backend.h"

namespace wavroute::testing {

[[nodiscard]] std::unique_ptr<ops::Backend> make_emulated_backend();

}  // namespace wavroute::testing
