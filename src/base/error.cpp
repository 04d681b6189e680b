#include "wavroute/error.h"

#include <utility>

namespace wavroute {

Error::Error(int exit_code, const std::string& what, std::string hint)
    : std::runtime_error(what), exit_code_(exit_code), hint_(std::move(hint)) {}

UserError::UserError(const std::string& what, std::string hint) : Error(2, what, std::move(hint)) {}

Failure::Failure(const std::string& what, std::string hint) : Error(1, what, std::move(hint)) {}

}  // namespace wavroute
