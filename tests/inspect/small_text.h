// A text of random ids for the small models.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "data/batches.h"
#include "data/token_file.h"
#include "tests/model/small_model.h"

namespace wavroute::testing {

inline TokenView small_text(int64_t tokens, std::string_view name = "text") {
  const at::Tensor ids = random_tokens(1, tokens, name);
  auto packed = std::make_shared<std::vector<uint16_t>>();
  for (int64_t i = 0; i < tokens; ++i) {
    packed->push_back(static_cast<uint16_t>(ids.const_data_ptr<int64_t>()[i]));
  }
  return {packed, std::as_bytes(std::span(*packed)), 2, 17, std::string(name)};
}

}  // namespace wavroute::testing
