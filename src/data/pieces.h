// Encoding long texts a piece at a time, so that their ids are never in memory all at once.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

#include "wavroute/tokenizer.h"

namespace wavroute {

// Calls visit(ids) with the tokens of `text`, piece by piece, in order: the tokenizer says where it
// may be cut. `where` and `offset` as Tokenizer::encode's; errors are its.
void encode_in_pieces(const Tokenizer& tokenizer, std::string_view text, std::string_view where,
                      uint64_t offset, const std::function<void(std::span<const uint32_t>)>& visit);

}  // namespace wavroute
