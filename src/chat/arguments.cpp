#include "chat/arguments.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/printable.h"

namespace wavroute::chat {

Parameters::Parameters(const Arguments& arguments, std::string callee,
                       std::initializer_list<std::string_view> names, size_t required, Work& work)
    : callee_(std::move(callee)), values_(names.size(), nullptr), work_(work) {
  if (arguments.by_place.size() > names.size()) {
    work.fail(fmt::format("at most {} arguments of {}", names.size(), callee_),
              std::to_string(arguments.by_place.size()));
  }
  for (size_t i = 0; i < arguments.by_place.size(); ++i) values_[i] = &arguments.by_place[i];
  for (const auto& [name, value] : arguments.by_name) {
    const auto* const found = std::ranges::find(names, std::string_view(name));
    const auto index = static_cast<size_t>(found - names.begin());
    if (found == names.end()) {
      work.fail("an argument that " + callee_ + " has", printable(name));
    }
    if (values_[index] != nullptr) work.fail("every argument once", printable(name) + " twice");
    values_[index] = &value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (values_[i] == nullptr) {
      work.fail(fmt::format("{} arguments of {}", required, callee_), "fewer");
    }
  }
}

const Value* Parameters::set(size_t index) const {
  const Value* value = values_[index];
  return value != nullptr && value->is_none() ? nullptr : value;
}

const std::string& Parameters::text(size_t index) const {
  if (!values_[index]->is_text()) {
    work_.fail("a text as argument of " + callee_, kind_of(*values_[index]));
  }
  return values_[index]->text();
}

int64_t Parameters::integer(size_t index, int64_t otherwise) const {
  if (values_[index] == nullptr) return otherwise;
  if (!values_[index]->is_integer()) {
    work_.fail("an integer as argument of " + callee_, kind_of(*values_[index]));
  }
  return values_[index]->integer();
}

bool Parameters::flag(size_t index, bool otherwise) const {
  return values_[index] == nullptr ? otherwise : is_true(*values_[index]);
}

}  // namespace wavroute::chat
