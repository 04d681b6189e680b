// Our errors as those of Python.
#pragma once

#include <c10/util/Exception.h>

#include <string>
#include <utility>

#include "wavroute/error.h"

namespace wavroute::python {

// What `call` returns. A UserError becomes a ValueError, its hint in parentheses behind it; a
// Failure a RuntimeError.
template <typename Call>
auto translated(Call call) {
  const auto text = [](const Error& error) {
    const std::string what = error.what();
    return error.hint().empty() ? what : what + " (" + error.hint() + ")";
  };
  std::string message;
  try {
    return call();
  } catch (const UserError& error) {
    message = text(error);
  } catch (const Failure& error) {
    TORCH_CHECK(false, text(error));
  }
  C10_THROW_ERROR(ValueError, message);
}

}  // namespace wavroute::python
