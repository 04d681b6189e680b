#include "wavroute/error.h"

#include <fmt/format.h>

#include <utility>

namespace wavroute {

Error::Error(int exit_code, const std::string& what, std::string hint)
    : std::runtime_error(what), exit_code_(exit_code), hint_(std::move(hint)) {}

UserError::UserError(const std::string& what, std::string hint) : Error(2, what, std::move(hint)) {}

Failure::Failure(const std::string& what, std::string hint) : Error(1, what, std::move(hint)) {}

Quoted::Quoted(std::string text) : text_(std::move(text)) {}

Quoted::Quoted(double number) : text_(fmt::format("{}", number)) {}

std::string expectation(std::string_view what, const Quoted& given, std::string_view where) {
  return fmt::format("expected {}, given {}{}{}", what, given.text(), where.empty() ? "" : ", ",
                     where);
}

UserError expected(std::string_view what, const Quoted& given, std::string_view where,
                   std::string hint) {
  return UserError(expectation(what, given, where), std::move(hint));
}

}  // namespace wavroute
