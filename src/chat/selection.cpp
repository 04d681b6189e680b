#include "chat/selection.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "chat/filters.h"
#include "chat/operators.h"
#include "chat/text.h"
#include "chat/value_tests.h"

namespace wavroute::chat {
namespace {

// The arguments behind the first `count` ones.
Arguments rest_of(const Arguments& arguments, size_t count) {
  const auto begin = arguments.by_place.begin() + static_cast<std::ptrdiff_t>(count);
  return {Values(begin, arguments.by_place.end()), arguments.by_name};
}

const std::string& name_at(const Arguments& arguments, size_t index, Work& work) {
  const Value& name = arguments.by_place[index];
  if (!name.is_text()) work.fail("the name of a filter or a test", kind_of(name));
  return name.text();
}

Value make_generator(Values items, Work& work) {
  return make_sequence(SequenceKind::kGenerator, std::move(items), work);
}

}  // namespace

Value part_at(const Value& item, const Value& path, Work& work) {
  if (path.is_none()) return item;
  if (!path.is_text()) return subscript(item, path, work);
  Value value = item;
  for (const std::string_view part : split(path.text(), ".", -1)) {
    int64_t index = 0;
    const auto read = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool is_index = !part.empty() && part[0] != '-' && read.ec == std::errc() &&
                          read.ptr == part.data() + part.size();
    if (!is_index && !is_ascii(part)) work.refuse("an attribute beyond ASCII");
    value = subscript(value, is_index ? Value(index) : Value(part), work);
  }
  return value;
}

Value map_items(const Value& value, const Arguments& arguments, Work& work) {
  if (!is_true(value)) return make_generator({}, work);  // whatever it is
  Values items;
  if (arguments.by_place.empty()) {
    const Parameters given(arguments, "the filter 'map'", {"attribute", "default"}, 1, work);
    for (const Value& item : items_of(value, work)) {
      if (given.set(1) != nullptr && given.at(0)->is_text() &&
          given.at(0)->text().find('.') != std::string::npos) {
        work.refuse("map() of a path with a default");
      }
      Value part = part_at(item, *given.at(0), work);
      if (part.is_undefined() && given.set(1) != nullptr) part = *given.at(1);
      items.push_back(std::move(part));
    }
    return make_generator(std::move(items), work);
  }
  const std::string& name = name_at(arguments, 0, work);
  const Arguments others = rest_of(arguments, 1);
  for (const Value& item : items_of(value, work)) {
    items.push_back(apply_filter(name, item, others, work));
  }
  return make_generator(std::move(items), work);
}

Value select_items(std::string_view name, const Value& value, const Arguments& arguments,
                   Work& work) {
  const bool by_attribute = name.ends_with("attr");
  const bool is_kept = name.starts_with("select");
  const size_t before = by_attribute ? 1 : 0;
  if (arguments.by_place.size() < before) {
    work.fail(fmt::format("an attribute for the filter '{}'", name), "none");
  }
  if (!is_true(value)) return make_generator({}, work);
  const bool has_test = arguments.by_place.size() > before;
  const Arguments others = has_test ? rest_of(arguments, before + 1) : Arguments{};
  Values items;
  for (const Value& item : items_of(value, work)) {
    const Value part = by_attribute ? part_at(item, arguments.by_place[0], work) : item;
    const bool passed =
        has_test ? passes(name_at(arguments, before, work), part, others, work) : is_true(part);
    if (passed == is_kept) items.push_back(item);
  }
  return make_generator(std::move(items), work);
}

}  // namespace wavroute::chat
