// A model of bytes for tests, with its initial values.
#pragma once

#include "wavroute/generate.h"

namespace wavroute::testing {

inline DecoderSpec spec_of_bytes() {
  DecoderSpec spec;
  spec.model = {.layers = 2,
                .width = 16,
                .heads = 2,
                .kv_heads = 2,
                .head_dim = 0,
                .hidden = 32,
                .context = 16};
  spec.scheme = "wav";
  return spec;
}

inline TextModel model_of_bytes() {
  return {std::make_unique<Decoder>(spec_of_bytes(), Precision::kFp32, at::kCPU, /*seed=*/3),
          make_bytes_tokenizer(),
          {}};
}

}  // namespace wavroute::testing
