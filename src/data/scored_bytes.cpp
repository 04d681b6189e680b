#include "data/scored_bytes.h"

#include "data/characters.h"

namespace wavroute {

ScoredBytes::ScoredBytes(const Tokenizer& tokenizer)
    : tokenizer_(tokenizer), end_(tokenizer.end_token()), unknown_(unknown_token(tokenizer)) {}

}  // namespace wavroute
