// What a call was given, and what it expects.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "chat/value.h"

namespace wavroute::chat {

struct Arguments {
  Values by_place;
  std::vector<std::pair<std::string, Value>> by_name;
};

// Gives every argument to a parameter. UserError for more than there are and for unknown names.
class Parameters {
 public:
  // A parameter without a name ("") is taken by place alone; the first `required` must be given.
  // `callee` as in "the filter 'join'".
  Parameters(const Arguments& arguments, std::string callee,
             std::initializer_list<std::string_view> names, size_t required, Work& work);

  // Null where it was not given.
  [[nodiscard]] const Value* at(size_t index) const { return values_[index]; }
  // The same where none counts as not given.
  [[nodiscard]] const Value* set(size_t index) const;
  // UserErrors for values of other kinds.
  [[nodiscard]] const std::string& text(size_t index) const;
  [[nodiscard]] int64_t integer(size_t index, int64_t otherwise) const;
  [[nodiscard]] bool flag(size_t index, bool otherwise) const;

 private:
  std::string callee_;
  std::vector<const Value*> values_;
  Work& work_;
};

}  // namespace wavroute::chat
