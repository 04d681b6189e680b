#include "data/pieces.h"

namespace wavroute {
namespace {

constexpr size_t kPieceBytes = size_t{1} << 20;

size_t piece_bytes(std::string_view text, const Tokenizer& tokenizer) {
  size_t bytes = 0;
  for (size_t most = kPieceBytes; bytes == 0; most *= 2) bytes = tokenizer.cut(text, most);
  return bytes;
}

}  // namespace

void encode_in_pieces(const Tokenizer& tokenizer, std::string_view text, std::string_view where,
                      uint64_t offset,
                      const std::function<void(std::span<const uint32_t>)>& visit) {
  for (size_t begin = 0; begin < text.size();) {
    const std::string_view rest = text.substr(begin);
    const std::string_view piece = rest.substr(0, piece_bytes(rest, tokenizer));
    visit(begin == 0 ? tokenizer.encode(piece, where, offset)
                     : tokenizer.encode_rest(piece, where, offset + begin));
    begin += piece.size();
  }
}

}  // namespace wavroute
