// A scheme's own parameters beside what they started from.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "inspect/inspection.h"
#include "wavroute/decoder.h"

namespace wavroute {

// A checkpoint tensor that the scheme has besides a plain model's.
struct SchemeTensor {
  std::string name;                 // in a checkpoint
  std::string kind;                 // the name without the place: "res_proj.weight"
  std::optional<int64_t> sublayer;  // from 1, M + 1 for the read-out; none: of several
  at::Tensor value;                 // a view of the model's parameter
  at::Tensor start;                 // what it is drawn from the seed as
  bool start_is_known = false;      // false: it depends on a seed that was not given
};

// seed: of the run that drew the weights; none: not known.
[[nodiscard]] std::vector<SchemeTensor> scheme_tensors(Decoder& model, std::optional<int64_t> seed);

// How far each has gone: [{"name", "kind", "sublayer", "moved", "ratio"}]; `moved` is the root mean
// square of the change, `ratio` that over `reach`.
[[nodiscard]] nlohmann::ordered_json moves_json(const std::vector<SchemeTensor>& tensors,
                                                double reach);

// The loss with the tensors of one sublayer at a time put back to their start, over all windows:
// [{"sublayer", "name", "loss", "difference"}]. `names`: of the sublayers and the read-out.
[[nodiscard]] nlohmann::ordered_json ablate(Decoder& model,
                                            const std::vector<SchemeTensor>& tensors,
                                            const std::vector<EvalWindows>& texts,
                                            const InspectionOptions& options);

}  // namespace wavroute
