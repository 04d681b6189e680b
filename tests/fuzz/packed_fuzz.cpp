// Packed sources: the input is a gzip or zstd file, or what is neither.
#include <string>

#include "data/source_bytes.h"
#include "fuzz.h"

using namespace wavroute;

WAVROUTE_FUZZ_TARGET(text) {
  constexpr size_t kMost = size_t{1} << 24;  // a short input may stand for a very long text
  const auto file = fuzz::scratch() / "input.packed";
  fuzz::put(file, text);
  fuzz::accepts([&] {
    SourceBytes source(file);
    std::string all, piece(1 << 16, '\0');
    for (;;) {
      const size_t count = source.read(piece);
      if (count == 0 || all.size() > kMost) break;
      fuzz::require(count <= piece.size(), "no more than there is room for");
      all.append(piece, 0, count);
    }
    if (all.size() > kMost) return;
    fuzz::require(source.stored_bytes() == text.size(), "a source is read to its end");
    if (source.packing().empty()) fuzz::require(all == text, "what isn't packed stays as it is");
  });
}
