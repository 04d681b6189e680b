#include "chat/work.h"

#include <fmt/format.h>

#include "wavroute/error.h"

namespace wavroute::chat {

std::string Work::place() const { return fmt::format("in line {} of {}", line_, where_); }

void Work::spend(size_t units) {
  spent_ += units;
  if (units <= kMostWork && spent_ <= kMostWork) return;
  throw expected("a template that ends", "one that goes on and on", place());
}

void Work::spend_text(size_t bytes) {
  if (bytes > kMostTextBytes) {
    fail(fmt::format("texts of at most {} bytes", kMostTextBytes), "a longer one");
  }
  spend(bytes);
}

void Work::refuse(std::string_view construct) const {
  throw expected("what wavroute renders of Jinja", std::string(construct), place(),
                 "docs/models.md lists it; --template FILE takes another template");
}

void Work::fail(std::string_view wanted, const std::string& given) const {
  throw expected(wanted, given, place());
}

void Work::fail_nesting() const {
  fail(fmt::format("at most {} levels in each other", kMostNesting), "more");
}

}  // namespace wavroute::chat
