// The kernels of one instruction set, chosen at run time.
#pragma once

#include <span>
#include <string>

#include "kernels/attention.h"
#include "kernels/decode.h"
#include "kernels/elementwise.h"
#include "kernels/q8.h"
#include "kernels/route.h"
#include "kernels/stream.h"

namespace wavroute::kernels {

// kAmxBf16: kAvx512Bf16 with attention of bf16 numbers on the tiles of AMX.
enum class Isa { kPortable, kAvx2, kAvx512, kAvx512Bf16, kAmxBf16 };

// "portable", "avx2", "avx512", "avx512_bf16", "amx_bf16"
[[nodiscard]] std::string to_string(Isa isa);

struct Kernels {
  Isa isa = Isa::kPortable;
  const ByType<StreamKernels>* stream = nullptr;
  const ByType<ActivationKernels>* activation = nullptr;
  const FlatKernels* flat = nullptr;
  const ByType<AttentionKernels>* attention = nullptr;
  const ByType<FinishedKernels>* finished = nullptr;
  const ByType<RunningKernels>* running = nullptr;
  const ByType<DecodeKernels>* decode = nullptr;
  const Q8Kernels* q8 = nullptr;
};

// The instruction sets that this build has and this machine runs, plainest first.
[[nodiscard]] std::span<const Kernels> usable_kernels();

// The one of this name, or the last of usable_kernels() for no name (null or empty). Throws
// UserError for a name that is unknown or not usable here.
[[nodiscard]] const Kernels& find_kernels(const char* name);

// The one that the environment's WAVROUTE_ISA names, found once.
[[nodiscard]] const Kernels& chosen_kernels();

}  // namespace wavroute::kernels
