// `wavroute data train-tokenizer`.
#pragma once

#include "command.h"

namespace wavroute::app {

void add_train_tokenizer(CLI::App& data, Action& action);

}  // namespace wavroute::app
