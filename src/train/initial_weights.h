// train.init: the weights of another model that training starts from.
#pragma once

#include <string>
#include <vector>

#include "train/session.h"

namespace wavroute {

// Compares the tensors of train.init with the session's model, by their names and shapes alone, and
// its tokenizer, if it has one, with the session's; nothing to do without train.init. UserError
// that names what differs. Returns what else differs (the rotary base, the norms' eps, the residual
// scheme and its options, ...): the same tensors then give another function.
std::vector<std::string> check_initial_weights(const Session& session);

// The same, and the model gets the weights; session.init_sha256 is that of their file,
// session.companions are those beside it.
std::vector<std::string> load_initial_weights(Session& session);

// The sha256 of the file that train.init leads to; empty without train.init.
[[nodiscard]] std::string initial_weights_sha256(const Config& config);

}  // namespace wavroute
