// Spikes of a training loss: sudden rises, which a mean over a run hides.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace wavroute {

// Where each spike begins: the loss rises to more than 4 standard deviations above its running
// mean, or is not finite. The running mean and deviation are those of the last 32 losses that were
// no spike, and the first 8 are never spikes. Losses above it in a row are one spike; where more
// than 32 of them follow one another the loss has found another level, which the running mean then
// takes over. `losses`: by step, as metrics.jsonl has them.
[[nodiscard]] std::vector<std::size_t> find_spikes(std::span<const double> losses);

}  // namespace wavroute
