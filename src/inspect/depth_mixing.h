// The depth-mixing matrix M: M[l, j] is the weight with which reader l takes the write of j (the
// embedding e, then the updates u_1 ..), a token's coefficients held fixed.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "inspect/layer_pass.h"
#include "wavroute/decoder.h"

namespace wavroute {

// weights [columns, B or 1, T or 1, d or 1]: the columns first_column .. of one reader's row, 1
// where all tokens, or all channels, have the same. Columns after the reader's own place are zero
// and left out.
using OnMixing =
    std::function<void(int64_t reader, int64_t first_column, const at::Tensor& weights)>;

// Runs the stream's own code on unit vectors with the coefficients of `pass`, which was of this
// model and program, and tells M piece by piece: every column of every reader once.
void mix_depths(const Decoder& model, const LayerProgram* program, const Progress& progress,
                LayerPass& pass, const OnMixing& tell);

}  // namespace wavroute
