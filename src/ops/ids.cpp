#include "ops/ids.h"

#include <string>

#include "ops/typed.h"
#include "wavroute/error.h"

namespace wavroute::ops {

void check_ids(const at::Tensor& ids, int64_t vocabulary, bool targets) {
  const at::Tensor packed = ids.contiguous();
  const int64_t* id = in<int64_t>(packed);
  for (int64_t i = 0; i < packed.numel(); ++i) {
    if (static_cast<uint64_t>(id[i]) < static_cast<uint64_t>(vocabulary)) continue;
    if (targets && id[i] == kUnscored) continue;
    throw expected("token ids below the vocabulary of " + std::to_string(vocabulary), id[i],
                   "as number " + std::to_string(i) + " of a batch",
                   "the tokens were made for a model with another vocabulary");
  }
}

}  // namespace wavroute::ops
