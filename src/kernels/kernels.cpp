#include "kernels/kernels.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdlib>
#include <vector>

#if defined(WAVROUTE_X86) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "wavroute/error.h"

namespace wavroute::kernels {

// Defined by the sources of each instruction set.
#define WAVROUTE_DECLARE_TABLES(isa)                         \
  namespace isa {                                            \
  extern const ByType<StreamKernels> stream_kernels;         \
  extern const ByType<ActivationKernels> activation_kernels; \
  extern const FlatKernels flat_kernels;                     \
  extern const ByType<AttentionKernels> attention_kernels;   \
  extern const ByType<FinishedKernels> finished_kernels;     \
  extern const ByType<RunningKernels> running_kernels;       \
  extern const ByType<DecodeKernels> decode_kernels;         \
  extern const Q8Kernels q8_kernels;                         \
  }
WAVROUTE_DECLARE_TABLES(portable)
// The build decides which of them it has (WAVROUTE_ISAS).
#ifdef WAVROUTE_AVX2
WAVROUTE_DECLARE_TABLES(avx2)
#endif
#ifdef WAVROUTE_AVX512
WAVROUTE_DECLARE_TABLES(avx512)
#endif
#ifdef WAVROUTE_AVX512_BF16
WAVROUTE_DECLARE_TABLES(avx512_bf16)
namespace avx512_bf16 {
extern const AttentionKernels<Bf16> tile_attention;
}
#endif

namespace {

#define WAVROUTE_TABLES(isa, id)                                                \
  Kernels {                                                                     \
    id, &isa::stream_kernels, &isa::activation_kernels, &isa::flat_kernels,     \
        &isa::attention_kernels, &isa::finished_kernels, &isa::running_kernels, \
        &isa::decode_kernels, &isa::q8_kernels                                  \
  }

#ifdef WAVROUTE_AVX512_BF16
// Whether the processor has tile registers that multiply bf16 numbers, and this process may use
// them: Linux saves them only for processes that ask for it. Not every compiler knows their names.
bool get_tiles() {
#ifdef __linux__
  constexpr unsigned kTilesOfBf16 = 1U << 22, kTiles = 1U << 24;  // in EDX of CPUID's leaf 7
  constexpr int kRequestPermission = 0x1023;                      // ARCH_REQ_XCOMP_PERM
  constexpr int kTileData = 18;                                   // XFEATURE_XTILEDATA
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  if ((d & kTilesOfBf16) == 0 || (d & kTiles) == 0) return false;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

std::vector<Kernels> find_usable() {
  std::vector<Kernels> usable = {WAVROUTE_TABLES(portable, Isa::kPortable)};
#ifdef WAVROUTE_X86
  __builtin_cpu_init();
  [[maybe_unused]] const bool avx2 =
      __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
  [[maybe_unused]] const bool avx512 =
      avx2 && __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
      __builtin_cpu_supports("avx512vl") != 0 && __builtin_cpu_supports("avx512dq") != 0;
  [[maybe_unused]] const bool avx512_bf16 = avx512 && __builtin_cpu_supports("avx512bf16") != 0 &&
                                            __builtin_cpu_supports("avx512vnni") != 0;
#ifdef WAVROUTE_AVX2
  if (avx2) usable.push_back(WAVROUTE_TABLES(avx2, Isa::kAvx2));
#endif
#ifdef WAVROUTE_AVX512
  if (avx512) usable.push_back(WAVROUTE_TABLES(avx512, Isa::kAvx512));
#endif
#ifdef WAVROUTE_AVX512_BF16
  if (avx512_bf16) usable.push_back(WAVROUTE_TABLES(avx512_bf16, Isa::kAvx512Bf16));
  if (avx512_bf16 && get_tiles()) {
    static const ByType<AttentionKernels> attention = {avx512_bf16::attention_kernels.fp32,
                                                       avx512_bf16::tile_attention};
    usable.push_back(WAVROUTE_TABLES(avx512_bf16, Isa::kAmxBf16));
    usable.back().attention = &attention;
  }
#endif
#endif
  return usable;
}

}  // namespace

const Kernels& find_kernels(const char* name) {
  const std::span<const Kernels> usable = usable_kernels();
  if (name == nullptr || *name == '\0') return usable.back();
  std::vector<std::string> names;
  for (const Kernels& kernels : usable) {
    if (to_string(kernels.isa) == name) return kernels;
    names.push_back(to_string(kernels.isa));
  }
  throw expected(fmt::format("one of {} as WAVROUTE_ISA on this machine", fmt::join(names, ", ")),
                 fmt::format("'{}'", name), {}, "unset WAVROUTE_ISA to take the best one");
}

std::string to_string(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return "portable";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Bf16:
      return "avx512_bf16";
    case Isa::kAmxBf16:
      return "amx_bf16";
  }
  return "";
}

std::span<const Kernels> usable_kernels() {
  static const std::vector<Kernels> usable = find_usable();
  return usable;
}

const Kernels& chosen_kernels() {
  static const Kernels& chosen = find_kernels(std::getenv("WAVROUTE_ISA"));
  return chosen;
}

}  // namespace wavroute::kernels
