#include "base/philox.h"

#include <cmath>
#include <numbers>

namespace wavroute {
namespace {

constexpr uint32_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
constexpr int kRounds = 10;

uint64_t join(uint32_t high, uint32_t low) { return (static_cast<uint64_t>(high) << 32) | low; }

double unit_interval(uint64_t bits) { return static_cast<double>(bits >> 11) * 0x1.0p-53; }

}  // namespace

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> c, std::array<uint32_t, 2> k) noexcept {
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(kMultiplier0) * c[0];
    const uint64_t p1 = static_cast<uint64_t>(kMultiplier1) * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k[0], static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k[1], static_cast<uint32_t>(p0)};
    k[0] += kWeyl0;
    k[1] += kWeyl1;
  }
  return c;
}

uint64_t fnv1a(std::string_view text, uint64_t basis) noexcept {
  for (const char c : text) basis = (basis ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return basis;
}

Philox::Philox(uint64_t seed, std::string_view purpose, std::string_view name) noexcept {
  // The seed goes through the block function too, so that neighbouring seeds share no key bits.
  uint64_t hash = fnv1a(purpose);
  hash = fnv1a(std::string_view("\0", 1), hash);
  hash = fnv1a(name, hash);
  const auto mixed = philox4x32({static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32),
                                 static_cast<uint32_t>(hash), static_cast<uint32_t>(hash >> 32)},
                                {0x77617672, 0x6f757465});
  key_ = {mixed[0], mixed[1]};
}

std::array<uint32_t, 4> Philox::bits(uint64_t index, uint64_t stream) const noexcept {
  return philox4x32({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32),
                     static_cast<uint32_t>(stream), static_cast<uint32_t>(stream >> 32)},
                    key_);
}

double Philox::uniform(uint64_t index, uint64_t stream) const noexcept {
  const auto b = bits(index, stream);
  return unit_interval(join(b[0], b[1]));
}

std::array<double, 2> Philox::normal_pair(uint64_t k, uint64_t stream) const noexcept {
  const auto b = bits(k, stream);
  const double u = 1.0 - unit_interval(join(b[0], b[1]));  // in (0, 1]
  const double radius = std::sqrt(-2.0 * std::log(u));
  const double angle = 2.0 * std::numbers::pi * unit_interval(join(b[2], b[3]));
  return {radius * std::cos(angle), radius * std::sin(angle)};
}

double Philox::normal(uint64_t index, uint64_t stream) const noexcept {
  return normal_pair(index / 2, stream)[index % 2];
}

}  // namespace wavroute
