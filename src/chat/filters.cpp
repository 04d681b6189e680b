#include "chat/filters.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <map>
#include <optional>

#include "base/printable.h"
#include "chat/methods.h"
#include "chat/operators.h"
#include "chat/selection.h"
#include "chat/text.h"
#include "chat/value_text.h"

namespace wavroute::chat {
namespace {

using Filter = std::function<Value(const Value& value, const Arguments& arguments,
                                   const std::string& callee, Work& work)>;
using Table = std::map<std::string_view, Filter>;

Value trim(const Value& value, const Arguments& arguments, const std::string& callee, Work& work) {
  const Parameters given(arguments, callee, {"chars"}, 0, work);
  const std::string text = to_text(value, work);
  if (given.set(0) == nullptr) return stripped(text, Sides::kBoth);
  work.spend(text.size() * (given.text(0).size() + 1));
  return stripped(text, Sides::kBoth, given.text(0));
}

Value default_value(const Value& value, const Arguments& arguments, const std::string& callee,
                    Work& work) {
  const Parameters given(arguments, callee, {"default_value", "boolean"}, 0, work);
  if (!value.is_undefined() && (!given.flag(1, false) || is_true(value))) return value;
  return given.at(0) == nullptr ? Value("") : *given.at(0);
}

Value join(const Value& value, const Arguments& arguments, const std::string& callee, Work& work) {
  const Parameters given(arguments, callee, {"d", "attribute"}, 0, work);
  Values items = items_of(value, work);
  if (given.set(1) != nullptr) {
    for (Value& item : items) item = part_at(item, *given.at(1), work);
  }
  return joined(given.at(0) == nullptr ? "" : to_text(*given.at(0), work), items, work);
}

Value replace(const Value& value, const Arguments& arguments, const std::string& callee,
              Work& work) {
  const Parameters given(arguments, callee, {"old", "new", "count"}, 2, work);
  const std::string text = to_text(value, work);
  const int64_t most = given.set(2) == nullptr ? -1 : given.integer(2, -1);
  std::string result = replaced(text, to_text(*given.at(0), work), to_text(*given.at(1), work),
                                most, kMostTextBytes);
  work.spend_text(result.size());
  return result;
}

Value first(const Value& value, const Arguments& arguments, const std::string& callee, Work& work) {
  const Parameters given(arguments, callee, {}, 0, work);
  const Values items = items_of(value, work);
  return items.empty() ? Value() : items.front();
}

Value last(const Value& value, const Arguments& arguments, const std::string& callee, Work& work) {
  const Parameters given(arguments, callee, {}, 0, work);
  if (value.is_sequence(SequenceKind::kGenerator)) {
    work.fail("what has a last item", kind_of(value));
  }
  const Values items = items_of(value, work);
  return items.empty() ? Value() : items.back();
}

Value reverse(const Value& value, const Arguments& arguments, const std::string& callee,
              Work& work) {
  const Parameters given(arguments, callee, {}, 0, work);
  if (value.is_sequence(SequenceKind::kGenerator)) work.refuse("'reverse' of a generator");
  if (value.is_undefined()) work.refuse("'reverse' of an undefined value");
  const Values forwards = items_of(value, work);
  Values items(forwards.rbegin(), forwards.rend());
  if (value.is_text()) return joined("", items, work);
  return make_sequence(SequenceKind::kGenerator, std::move(items), work);
}

Value list(const Value& value, const Arguments& arguments, const std::string& callee, Work& work) {
  const Parameters given(arguments, callee, {}, 0, work);
  return make_list(items_of(value, work), work);
}

Value items(const Value& value, const Arguments& arguments, const std::string& callee, Work& work) {
  const Parameters given(arguments, callee, {}, 0, work);
  Values pairs;
  if (const Dict* dict = value.dict()) {
    for (const auto& [key, item] : dict->entries) {
      pairs.push_back(make_sequence(SequenceKind::kTuple, {key, item}, work));
    }
  } else if (!value.is_undefined()) {
    work.fail("a dict", kind_of(value));
  }
  return make_sequence(SequenceKind::kGenerator, std::move(pairs), work);
}

// Python's int() and float() of a text: white space around it, digits with single _ between them.
std::optional<std::string> digits_of(std::string_view text) {
  std::string result;
  text = stripped(text, Sides::kBoth);
  const bool has_sign = text.starts_with('+');
  if (has_sign) text.remove_prefix(1);  // from_chars doesn't take it
  if (has_sign && !text.empty() && (text[0] == '+' || text[0] == '-')) return std::nullopt;
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      result += text[i];
    } else if (i == 0 || i + 1 == text.size() || !is_digit(text[i - 1]) || !is_digit(text[i + 1])) {
      return std::nullopt;
    }
  }
  return result;
}

std::optional<double> read_float(const std::string& text, Work& work) {
  const auto digits = digits_of(text);
  if (!digits) return std::nullopt;
  double number = 0.0;
  const char* const end = digits->data() + digits->size();
  const auto read = std::from_chars(digits->data(), end, number);
  if (read.ptr != end || digits->empty()) return std::nullopt;
  if (read.ec != std::errc() || !std::isfinite(number)) work.refuse("a number that is not finite");
  return number;
}

std::optional<int64_t> read_integer(const std::string& text, Work& work) {
  const auto digits = digits_of(text);
  if (!digits) return std::nullopt;
  int64_t number = 0;
  const char* const end = digits->data() + digits->size();
  const auto read = std::from_chars(digits->data(), end, number);
  if (read.ptr != end || digits->empty()) return std::nullopt;
  if (read.ec != std::errc()) work.refuse("an integer beyond 64 bits");
  return number;
}

int64_t truncated(double number, Work& work) {
  if (std::abs(number) >= 9e18) work.refuse("an integer beyond 64 bits");
  return static_cast<int64_t>(number);
}

void check_digits(const std::string& text, Work& work) {
  if (!is_ascii(text)) work.refuse("a number in a text beyond ASCII");
}

Value to_integer(const Value& value, const Arguments& arguments, const std::string& callee,
                 Work& work) {
  const Parameters given(arguments, callee, {"default"}, 0, work);  // base is not in the subset
  if (value.is_undefined()) work.fail("a value", kind_of(value));
  if (value.is_integer()) return value.integer();
  if (value.is<double>()) return truncated(value.number(), work);
  if (value.is_text()) {
    check_digits(value.text(), work);
    if (const auto number = read_integer(value.text(), work)) return *number;
    if (const auto number = read_float(value.text(), work)) return truncated(*number, work);
  }
  return given.at(0) == nullptr ? Value(int64_t{0}) : *given.at(0);
}

Value to_float(const Value& value, const Arguments& arguments, const std::string& callee,
               Work& work) {
  const Parameters given(arguments, callee, {"default"}, 0, work);
  if (value.is_undefined()) work.fail("a value", kind_of(value));
  if (value.is_number()) return value.number();
  if (value.is_text()) {
    check_digits(value.text(), work);
    if (const auto number = read_float(value.text(), work)) return *number;
  }
  return given.at(0) == nullptr ? Value(0.0) : *given.at(0);
}

Value tojson(const Value& value, const Arguments& arguments, const std::string& callee,
             Work& work) {
  const Parameters given(arguments, callee, {"ensure_ascii", "indent", "separators", "sort_keys"},
                         0, work);
  JsonStyle style;
  style.ensure_ascii = given.flag(0, false);
  style.sort_keys = given.flag(3, false);
  if (const Value* indent = given.set(1)) {
    constexpr int64_t kMostIndent = 100;
    style.is_indented = true;
    style.between = ",";
    const int64_t width = indent->is_text() ? 0 : given.integer(1, 0);
    if (width > kMostIndent) work.refuse("such a wide indent of tojson");
    style.indent = indent->is_text()
                       ? indent->text()
                       : std::string(static_cast<size_t>(std::max<int64_t>(0, width)), ' ');
  }
  if (const Value* separators = given.set(2)) {
    const Values texts = items_of(*separators, work);
    if (texts.size() != 2 || !texts[0].is_text() || !texts[1].is_text()) {
      work.fail("two texts as separators of tojson", kind_of(*separators));
    }
    style.between = texts[0].text();
    style.after_key = texts[1].text();
  }
  return to_json(value, style, work);
}

// A filter without arguments that makes a text of a text.
template <typename Change>
Filter changed(Change change) {
  return [change](const Value& value, const Arguments& arguments, const std::string& callee,
                  Work& work) -> Value {
    const Parameters given(arguments, callee, {}, 0, work);
    return change(to_text(value, work), work);
  };
}

Value count(const Value& value, const Arguments& arguments, const std::string& callee, Work& work) {
  const Parameters given(arguments, callee, {}, 0, work);
  return length_of(value, work);
}

const Table& filters() {
  static const Table kFilters = {
      {"trim", trim},
      {"length", count},
      {"count", count},
      {"default", default_value},
      {"d", default_value},
      {"join", join},
      {"replace", replace},
      {"first", first},
      {"last", last},
      {"reverse", reverse},
      {"list", list},
      {"items", items},
      {"int", to_integer},
      {"float", to_float},
      {"tojson", tojson},
      {"upper", changed(in_upper_case)},
      {"lower", changed(in_lower_case)},
      {"capitalize", changed(capitalized)},
      {"title", changed([](const std::string& text, Work& work) {
         return titled(text, "-({[< \t\n\v\f\r\x1c\x1d\x1e\x1f", work);
       })},
      {"string", changed([](std::string text, Work&) { return text; })},
  };
  return kFilters;
}

}  // namespace

Value apply_filter(std::string_view name, const Value& value, const Arguments& arguments,
                   Work& work) {
  if (name == "map") return map_items(value, arguments, work);
  if (name == "select" || name == "reject" || name == "selectattr" || name == "rejectattr") {
    return select_items(name, value, arguments, work);
  }
  const std::string callee = "the filter " + printable(name);
  const auto found = filters().find(name);
  if (found == filters().end()) work.refuse(callee);
  return found->second(value, arguments, callee, work);
}

}  // namespace wavroute::chat
