#include "chat/value.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/printable.h"
#include "base/utf8.h"
#include "chat/operators.h"

namespace wavroute::chat {
namespace {

template <typename Type, typename Pointer = std::shared_ptr<Type>>
Type* pointer_in(const Value::Any& any) {
  const auto* found = std::get_if<Pointer>(&any);
  return found == nullptr ? nullptr : found->get();
}

// The levels of containers in an item.
size_t depth_of_item(const Value& item, Work& work) {
  if (item.names() != nullptr || item.loop() != nullptr || item.function() != nullptr) {
    work.refuse(fmt::format("{} in a container", kind_of(item)));
  }
  if (const Sequence* sequence = item.sequence()) return sequence->depth;
  if (const Dict* dict = item.dict()) return dict->depth;
  return 0;
}

size_t deeper(size_t depth, Work& work) {
  if (depth >= kMostNesting) work.fail_nesting();
  return depth + 1;
}

const char* name_of(SequenceKind kind) {
  switch (kind) {
    case SequenceKind::kList:
      return "a list";
    case SequenceKind::kTuple:
      return "a tuple";
    case SequenceKind::kRange:
      return "a range";
    case SequenceKind::kKeys:
    case SequenceKind::kValues:
    case SequenceKind::kItems:
      return "a view of a dict";
    case SequenceKind::kGenerator:
      break;
  }
  return "a generator";
}

struct KindOf {
  std::string operator()(const Undefined& undefined) const {
    if (undefined.name == nullptr) return "an undefined value";
    return printable(*undefined.name) + ", which is undefined";
  }
  std::string operator()(None /*none*/) const { return "none"; }
  std::string operator()(bool flag) const { return flag ? "true" : "false"; }
  std::string operator()(int64_t number) const { return fmt::format("the number {}", number); }
  std::string operator()(double number) const { return fmt::format("the number {}", number); }
  std::string operator()(const Value::Text& text) const { return "the text " + printable(*text); }
  std::string operator()(const std::shared_ptr<Sequence>& sequence) const {
    return name_of(sequence->kind);
  }
  std::string operator()(const std::shared_ptr<const Dict>& /*dict*/) const { return "a dict"; }
  std::string operator()(const std::shared_ptr<Namespace>& /*names*/) const {
    return "a namespace";
  }
  std::string operator()(const std::shared_ptr<const Loop>& /*loop*/) const { return "a loop"; }
  std::string operator()(const std::shared_ptr<const Function>& function) const {
    return fmt::format("the {} {}", function->self ? "method" : "function",
                       printable(function->name));
  }
};

}  // namespace

const Value* Dict::find(std::string_view key) const {
  const auto found = std::ranges::find_if(entries, [&](const auto& entry) {
    return entry.first.is_text() && entry.first.text() == key;
  });
  return found == entries.end() ? nullptr : &found->second;
}

bool Value::is_sequence(SequenceKind kind) const {
  const Sequence* found = sequence();
  return found != nullptr && found->kind == kind;
}

int64_t Value::integer() const {
  const bool* flag = std::get_if<bool>(&any_);
  return flag != nullptr ? int64_t{*flag} : std::get<int64_t>(any_);
}

double Value::number() const {
  const double* real = std::get_if<double>(&any_);
  return real != nullptr ? *real : static_cast<double>(integer());
}

Sequence* Value::sequence() const { return pointer_in<Sequence>(any_); }
const Dict* Value::dict() const {
  return pointer_in<const Dict, std::shared_ptr<const Dict>>(any_);
}
Namespace* Value::names() const { return pointer_in<Namespace>(any_); }
const Loop* Value::loop() const {
  return pointer_in<const Loop, std::shared_ptr<const Loop>>(any_);
}
const Function* Value::function() const {
  return pointer_in<const Function, std::shared_ptr<const Function>>(any_);
}

std::string kind_of(const Value& value) { return std::visit(KindOf(), value.any()); }

bool is_true(const Value& value) {
  if (value.is_undefined() || value.is_none()) return false;
  if (value.is<double>()) return value.number() != 0.0;
  if (value.is_integer()) return value.integer() != 0;
  if (value.is_text()) return !value.text().empty();
  if (const Dict* dict = value.dict()) return !dict->entries.empty();
  if (const Sequence* sequence = value.sequence()) {
    return sequence->kind == SequenceKind::kGenerator || !sequence->items.empty();
  }
  if (const Loop* loop = value.loop()) return !loop->items->empty();
  return true;
}

Value make_sequence(SequenceKind kind, Values items, Work& work) {
  work.spend(kOperation + items.size() * sizeof(Value));
  size_t depth = 0;
  for (const Value& item : items) depth = std::max(depth, depth_of_item(item, work));
  return std::make_shared<Sequence>(Sequence{kind, std::move(items), deeper(depth, work), false});
}

Value make_list(Values items, Work& work) {
  return make_sequence(SequenceKind::kList, std::move(items), work);
}

Value make_dict(std::vector<std::pair<Value, Value>> entries, Work& work) {
  auto dict = std::make_shared<Dict>();
  size_t depth = 0;
  for (auto& given : entries) {
    Value &key = given.first, &value = given.second;
    if (key.dict() != nullptr || key.is_sequence(SequenceKind::kList)) {
      work.fail("a key that is a text or a number", kind_of(key));
    }
    if (key.is_undefined() || key.sequence() != nullptr) work.refuse(kind_of(key) + " as a key");
    depth = std::max({depth, depth_of_item(key, work), depth_of_item(value, work)});
    work.spend(kOperation + dict->entries.size());
    const auto same = std::ranges::find_if(
        dict->entries, [&](const auto& entry) { return are_equal(entry.first, key, work); });
    if (same == dict->entries.end()) {
      dict->entries.emplace_back(std::move(key), std::move(value));
    } else {
      same->second = std::move(value);
    }
  }
  dict->depth = deeper(depth, work);
  return std::shared_ptr<const Dict>(std::move(dict));
}

Value make_function(std::string name) {
  return std::make_shared<const Function>(Function{std::move(name), nullptr});
}

Value make_method(std::string name, Value self) {
  return std::make_shared<const Function>(
      Function{std::move(name), std::make_shared<const Value>(std::move(self))});
}

void set_attribute(Namespace& names, const std::string& name, Value value, Work& work) {
  if (name.starts_with('_')) {
    work.fail("a name of a namespace without _ at its beginning", printable(name));
  }
  static_cast<void>(depth_of_item(value, work));
  names.attributes.insert_or_assign(name, std::move(value));
}

namespace {

// `level`: of a container, 1 for the outermost. Values that are too deep are refused on the way
// down, before they need the stack.
Value value_at(const nlohmann::ordered_json& json, size_t level, Work& work) {
  if (json.is_structured() && level > kMostNesting) work.fail_nesting();
  using Type = nlohmann::ordered_json::value_t;
  switch (json.type()) {
    case Type::null:
      return None{};
    case Type::boolean:
      return json.get<bool>();
    case Type::number_integer:
      return json.get<int64_t>();
    case Type::number_unsigned:
      if (json.get<uint64_t>() > uint64_t{INT64_MAX}) work.refuse("a number beyond 63 bits");
      return json.get<int64_t>();
    case Type::number_float:
      return json.get<double>();
    case Type::string: {
      const auto& text = json.get_ref<const std::string&>();
      if (!is_utf8(text)) work.fail("texts in UTF-8", "other bytes");
      return text;
    }
    case Type::array: {
      Values items;
      for (const auto& item : json) items.push_back(value_at(item, level + 1, work));
      return make_list(std::move(items), work);
    }
    case Type::object: {
      std::vector<std::pair<Value, Value>> entries;
      for (const auto& [key, value] : json.items()) {
        entries.emplace_back(key, value_at(value, level + 1, work));
      }
      return make_dict(std::move(entries), work);
    }
    case Type::binary:
    case Type::discarded:
      break;
  }
  work.refuse("a variable of this kind");
}

}  // namespace

Value from_json(const nlohmann::ordered_json& json, Work& work) { return value_at(json, 1, work); }

}  // namespace wavroute::chat
