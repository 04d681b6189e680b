#include "chat/methods.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <map>

#include "base/printable.h"
#include "chat/operators.h"
#include "chat/text.h"
#include "chat/value_text.h"

namespace wavroute::chat {
namespace {

using Call = std::function<Value(const Value& self, const Arguments& arguments,
                                 const std::string& callee, Work& work)>;
using Table = std::map<std::string_view, Call>;

template <size_t count>
using Names = std::array<std::string_view, count>;

// What Python has besides the tables below.
constexpr Names<33> kOtherTextMethods = {
    "casefold",   "center",       "encode",     "expandtabs", "find",        "format",
    "format_map", "index",        "isalnum",    "isalpha",    "isascii",     "isdecimal",
    "isdigit",    "isidentifier", "islower",    "isnumeric",  "isprintable", "isspace",
    "istitle",    "isupper",      "ljust",      "maketrans",  "partition",   "rfind",
    "rindex",     "rjust",        "rpartition", "rsplit",     "splitlines",  "swapcase",
    "translate",  "zfill",        "__len__"};
constexpr Names<7> kOtherDictMethods = {"clear",      "fromkeys", "pop",    "popitem",
                                        "setdefault", "update",   "__len__"};
constexpr Names<14> kListMethods = {"append", "clear",  "copy", "count",  "extend",
                                    "index",  "insert", "pop",  "remove", "reverse",
                                    "sort",   "start",  "stop", "step"};
constexpr Names<14> kNumberMethods = {
    "as_integer_ratio", "bit_count", "bit_length", "conjugate", "denominator",
    "from_bytes",       "fromhex",   "hex",        "imag",      "is_integer",
    "numerator",        "real",      "to_bytes",   "__index__"};

Call strip(Sides sides) {
  return [sides](const Value& self, const Arguments& arguments, const std::string& callee,
                 Work& work) -> Value {
    const Parameters given(arguments, callee, {""}, 0, work);
    if (given.set(0) == nullptr) return stripped(self.text(), sides);
    work.spend(self.text().size() * (given.text(0).size() + 1));
    return stripped(self.text(), sides, given.text(0));
  };
}

Value split_text(const Value& self, const Arguments& arguments, const std::string& callee,
                 Work& work) {
  const Parameters given(arguments, callee, {"sep", "maxsplit"}, 0, work);
  const int64_t most = given.integer(1, -1);
  const bool has_separator = given.set(0) != nullptr;
  if (has_separator && given.text(0).empty()) work.fail("a separator", "an empty text");
  work.spend(self.text().size() * sizeof(Value));
  Values parts;
  for (const std::string_view part :
       has_separator ? split(self.text(), given.text(0), most) : split(self.text(), most)) {
    parts.emplace_back(part);
  }
  return make_list(std::move(parts), work);
}

// startswith, endswith: of one text, or of any text of a tuple.
Call with(bool is_beginning) {
  return [is_beginning](const Value& self, const Arguments& arguments, const std::string& callee,
                        Work& work) -> Value {
    const Parameters given(arguments, callee, {""}, 1, work);
    const auto has = [&](std::string_view part) {
      return is_beginning ? self.text().starts_with(part) : self.text().ends_with(part);
    };
    if (!given.at(0)->is_sequence(SequenceKind::kTuple)) return has(given.text(0));
    bool found = false;
    for (const Value& item : given.at(0)->sequence()->items) {
      if (!item.is_text()) work.fail("texts as arguments of " + callee, kind_of(item));
      found = found || has(item.text());
    }
    return found;
  };
}

Value replace_text(const Value& self, const Arguments& arguments, const std::string& callee,
                   Work& work) {
  const Parameters given(arguments, callee, {"", "", ""}, 2, work);
  std::string result =
      replaced(self.text(), given.text(0), given.text(1), given.integer(2, -1), kMostTextBytes);
  work.spend_text(result.size());
  return result;
}

Value join_texts(const Value& self, const Arguments& arguments, const std::string& callee,
                 Work& work) {
  const Parameters given(arguments, callee, {""}, 1, work);
  if (given.at(0)->is_undefined()) return "";
  const Values items = items_of(*given.at(0), work);
  for (const Value& item : items) {
    if (!item.is_text()) work.fail("texts to join", kind_of(item));
  }
  return joined(self.text(), items, work);
}

Value count_text(const Value& self, const Arguments& arguments, const std::string& callee,
                 Work& work) {
  const Parameters given(arguments, callee, {""}, 1, work);
  const std::string& part = given.text(0);
  work.spend(self.text().size());
  if (part.empty()) return static_cast<int64_t>(length(self.text())) + 1;
  return std::ssize(split(self.text(), part, -1)) - 1;
}

// removeprefix, removesuffix
Call without(bool is_prefix) {
  return [is_prefix](const Value& self, const Arguments& arguments, const std::string& callee,
                     Work& work) -> Value {
    const Parameters given(arguments, callee, {""}, 1, work);
    std::string_view text = self.text();
    const std::string& part = given.text(0);
    if (is_prefix && text.starts_with(part)) text.remove_prefix(part.size());
    if (!is_prefix && text.ends_with(part)) text.remove_suffix(part.size());
    return text;
  };
}

// A method without arguments that makes another text.
template <typename Change>
Call changed(Change change) {
  return [change](const Value& self, const Arguments& arguments, const std::string& callee,
                  Work& work) -> Value {
    const Parameters given(arguments, callee, {}, 0, work);
    return change(self.text(), work);
  };
}

const Table& text_methods() {
  static const Table kTable = {
      {"strip", strip(Sides::kBoth)},
      {"lstrip", strip(Sides::kLeft)},
      {"rstrip", strip(Sides::kRight)},
      {"split", split_text},
      {"startswith", with(true)},
      {"endswith", with(false)},
      {"replace", replace_text},
      {"join", join_texts},
      {"count", count_text},
      {"removeprefix", without(true)},
      {"removesuffix", without(false)},
      {"upper", changed(in_upper_case)},
      {"lower", changed(in_lower_case)},
      {"capitalize", changed(capitalized)},
      {"title", changed([](std::string_view text, Work& work) { return titled(text, {}, work); })},
  };
  return kTable;
}

Value get_item(const Value& self, const Arguments& arguments, const std::string& callee,
               Work& work) {
  const Parameters given(arguments, callee, {"", ""}, 1, work);
  if (!contains(self, *given.at(0), work)) return given.at(1) ? *given.at(1) : Value(None{});
  return subscript(self, *given.at(0), work);
}

// keys, values, items
Call view(SequenceKind kind) {
  return [kind](const Value& self, const Arguments& arguments, const std::string& callee,
                Work& work) -> Value {
    const Parameters given(arguments, callee, {}, 0, work);
    Values items;
    for (const auto& [key, value] : self.dict()->entries) {
      items.push_back(kind == SequenceKind::kKeys ? key
                      : kind == SequenceKind::kValues
                          ? value
                          : make_sequence(SequenceKind::kTuple, {key, value}, work));
    }
    return make_sequence(kind, std::move(items), work);
  };
}

const Table& dict_methods() {
  static const Table kTable = {
      {"get", get_item},
      {"keys", view(SequenceKind::kKeys)},
      {"values", view(SequenceKind::kValues)},
      {"items", view(SequenceKind::kItems)},
      {"copy",
       [](const Value& self, const Arguments& arguments, const std::string& callee, Work& work) {
         const Parameters given(arguments, callee, {}, 0, work);
         return self;
       }},
  };
  return kTable;
}

Value loop_part(const Loop& loop, std::string_view name, Work& work) {
  const auto count = std::ssize(*loop.items);
  const auto index0 = static_cast<int64_t>(loop.index0);
  const auto item = [&](int64_t at) {
    return at < 0 || at >= count ? Value(Undefined{}) : (*loop.items)[static_cast<size_t>(at)];
  };
  if (name == "index") return index0 + 1;
  if (name == "index0") return index0;
  if (name == "revindex") return count - index0;
  if (name == "revindex0") return count - index0 - 1;
  if (name == "first") return index0 == 0;
  if (name == "last") return index0 + 1 == count;
  if (name == "length") return count;
  if (name == "depth") return int64_t{1};
  if (name == "depth0") return int64_t{0};
  if (name == "previtem") return item(index0 - 1);
  if (name == "nextitem") return item(index0 + 1);
  if (name == "cycle" || name == "changed") work.refuse(fmt::format("loop.{}", name));
  return Undefined{std::make_shared<const std::string>(name)};
}

template <size_t count>
bool has(const Names<count>& names, std::string_view name) {
  return std::ranges::find(names, name) != names.end();
}

void check_ascii(std::string_view text, Work& work) {
  if (!is_ascii(text)) work.refuse("upper and lower case beyond ASCII");
  work.spend(text.size());
}

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

}  // namespace

Value attribute(const Value& value, std::string_view name, Work& work) {
  if (value.is_undefined()) work.fail("a value with parts", kind_of(value));
  bool is_python = name.starts_with("__");
  if (value.is_text() || value.dict() != nullptr) {
    const Table& table = value.is_text() ? text_methods() : dict_methods();
    if (table.contains(name)) return make_method(std::string(name), value);
    is_python = is_python ||
                (value.is_text() ? has(kOtherTextMethods, name) : has(kOtherDictMethods, name));
  } else if (const Namespace* names = value.names()) {
    const auto found = names->attributes.find(name);
    if (found != names->attributes.end()) return found->second;
  } else if (const Loop* loop = value.loop()) {
    if (!is_python) return loop_part(*loop, name, work);
  } else if (const Sequence* sequence = value.sequence()) {
    is_python = is_python || has(kListMethods, name) || sequence->kind > SequenceKind::kRange;
  } else {
    is_python = is_python || value.function() != nullptr ||
                (value.is_number() && has(kNumberMethods, name));
  }
  if (is_python) work.refuse(fmt::format("{} of {}", printable(name), kind_of(value)));
  return Undefined{std::make_shared<const std::string>(name)};
}

Value call_method(const Function& method, const Arguments& arguments, Work& work) {
  const Value& self = *method.self;
  const Table& table = self.is_text() ? text_methods() : dict_methods();
  return table.find(method.name)->second(self, arguments, method.name + "()", work);
}

std::string in_upper_case(std::string_view text, Work& work) {
  check_ascii(text, work);
  return upper(text);
}

std::string in_lower_case(std::string_view text, Work& work) {
  check_ascii(text, work);
  return lower(text);
}

std::string capitalized(std::string_view text, Work& work) {
  check_ascii(text, work);
  return upper(text.substr(0, 1)) + (text.empty() ? "" : lower(text.substr(1)));
}

std::string titled(std::string_view text, std::string_view separators, Work& work) {
  check_ascii(text, work);
  std::string result;
  bool is_first = true;
  for (const char c : text) {
    result += is_first ? upper({&c, 1}) : lower({&c, 1});
    is_first = separators.empty() ? !is_letter(c) : separators.find(c) != std::string_view::npos;
  }
  return result;
}

Value joined(std::string_view separator, const Values& items, Work& work) {
  std::string result;
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) result += separator;
    result += to_text(items[i], work);
    work.spend_text(result.size() > kMostTextBytes ? result.size() : separator.size());
  }
  work.spend_text(result.size());
  return result;
}

}  // namespace wavroute::chat
