#include "chat/operators.h"

#include <algorithm>
#include <optional>

#include "chat/arithmetic.h"
#include "chat/methods.h"
#include "chat/text.h"

namespace wavroute::chat {
namespace {

bool are_equal_lists(const Values& left, const Values& right, Work& work) {
  return std::ranges::equal(left, right,
                            [&](const Value& a, const Value& b) { return are_equal(a, b, work); });
}

bool are_equal_dicts(const Dict& left, const Dict& right, Work& work) {
  if (left.entries.size() != right.entries.size()) return false;
  return std::ranges::all_of(left.entries, [&](const auto& entry) {
    work.spend(right.entries.size());
    return std::ranges::any_of(right.entries, [&](const auto& other) {
      return are_equal(entry.first, other.first, work) &&
             are_equal(entry.second, other.second, work);
    });
  });
}

// The place that an index of Python means in `size` items; negative ones count from the end.
int64_t from_end(int64_t index, int64_t size) { return index < 0 ? index + size : index; }

std::optional<int64_t> bound(const Value& value, Work& work) {
  if (value.is_none()) return std::nullopt;
  if (!value.is_integer()) work.fail("integers in a slice", kind_of(value));
  return value.integer();
}

// The places that a slice of `size` items takes, in order.
std::vector<size_t> places(int64_t size, std::optional<int64_t> from, std::optional<int64_t> to,
                           int64_t step) {
  const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? size : size - 1;
  const auto clamped = [&](int64_t index) {
    return std::clamp(index < -size ? int64_t{-1} - size : from_end(index, size), low, high);
  };
  const int64_t begin = from ? clamped(*from) : step > 0 ? low : high;
  const int64_t end = to ? clamped(*to) : step > 0 ? high : low;
  std::vector<size_t> result;
  for (int64_t at = begin; step > 0 ? at < end : at > end;) {
    result.push_back(static_cast<size_t>(at));
    if (__builtin_add_overflow(at, step, &at)) break;
  }
  return result;
}

// The item at a key of the container's own; nothing where there is none.
std::optional<Value> item_at(const Value& value, const Value& key, Work& work) {
  if (const Dict* dict = value.dict()) {
    work.spend(dict->entries.size());
    if (key.is_text()) {
      const Value* found = dict->find(key.text());
      return found == nullptr ? std::nullopt : std::optional(*found);
    }
    for (const auto& [name, item] : dict->entries) {
      if (are_equal(name, key, work)) return item;
    }
    return std::nullopt;
  }
  if (!key.is_integer()) return std::nullopt;
  if (value.is_text()) {
    const auto all = characters(value.text());
    work.spend(value.text().size());
    const int64_t at = from_end(key.integer(), std::ssize(all));
    if (at < 0 || at >= std::ssize(all)) return std::nullopt;
    return Value(all[static_cast<size_t>(at)]);
  }
  const Sequence* sequence = value.sequence();
  if (sequence == nullptr || sequence->kind > SequenceKind::kRange) return std::nullopt;
  const int64_t at = from_end(key.integer(), std::ssize(sequence->items));
  if (at < 0 || at >= std::ssize(sequence->items)) return std::nullopt;
  return sequence->items[static_cast<size_t>(at)];
}

}  // namespace

bool are_equal(const Value& left, const Value& right, Work& work) {
  work.spend(1);
  if (left.is_number() && right.is_number()) return ordered(left, right, work) == 0;
  if (left.any().index() != right.any().index()) return false;
  if (left.is_text()) {
    work.spend(std::min(left.text().size(), right.text().size()));
    return left.text() == right.text();
  }
  if (left.is_undefined() || left.is_none()) return true;
  if (const Dict* dict = left.dict()) return are_equal_dicts(*dict, *right.dict(), work);
  if (const Sequence* sequence = left.sequence()) {
    const Sequence& other = *right.sequence();
    if (sequence == &other) return true;
    if (sequence->kind != other.kind) return false;
    if (sequence->kind > SequenceKind::kRange) work.refuse("== of " + kind_of(left));
    return are_equal_lists(sequence->items, other.items, work);
  }
  if (left.names() != nullptr) return left.names() == right.names();
  work.refuse("== of " + kind_of(left));
}

int ordered(const Value& left, const Value& right, Work& work) {
  const auto sign = [](const auto& a, const auto& b) { return a < b ? -1 : a > b ? 1 : 0; };
  if (left.is_text() && right.is_text()) {  // UTF-8 has the order of code points
    work.spend(std::min(left.text().size(), right.text().size()));
    return sign(left.text(), right.text());
  }
  if (!left.is_number() || !right.is_number()) {
    if (left.sequence() != nullptr && right.sequence() != nullptr) {
      work.refuse("an order of lists");
    }
    fail_sign("an order", left, right, work);
  }
  if (left.is_integer() && right.is_integer()) return sign(left.integer(), right.integer());
  constexpr int64_t kExact = int64_t{1} << 53;
  for (const Value* value : {&left, &right}) {
    if (value->is_integer() && (value->integer() > kExact || value->integer() < -kExact)) {
      work.refuse("such a large integer beside a float");
    }
  }
  return sign(left.number(), right.number());
}

bool contains(const Value& container, const Value& item, Work& work) {
  if (container.is_text()) {
    if (!item.is_text()) fail_sign("in", item, container, work);
    work.spend(container.text().size());
    return container.text().find(item.text()) != std::string::npos;
  }
  if (const Dict* dict = container.dict()) {
    if (item.dict() != nullptr || item.is_sequence(SequenceKind::kList)) {
      work.fail("a key that is a text or a number", kind_of(item));
    }
    work.spend(dict->entries.size());
    return std::ranges::any_of(
        dict->entries, [&](const auto& entry) { return are_equal(entry.first, item, work); });
  }
  if (container.is_undefined()) return false;
  const Sequence* sequence = container.sequence();
  if (sequence == nullptr) fail_sign("in", item, container, work);
  if (sequence->kind == SequenceKind::kGenerator) work.refuse("'in' of a generator");
  return std::ranges::any_of(sequence->items,
                             [&](const Value& other) { return are_equal(other, item, work); });
}

bool compare(std::string_view sign, const Value& left, const Value& right, Work& work) {
  if (sign == "==") return are_equal(left, right, work);
  if (sign == "!=") return !are_equal(left, right, work);
  if (sign == "in") return contains(right, left, work);
  if (sign == "not in") return !contains(right, left, work);
  const int order = ordered(left, right, work);
  if (sign == "<") return order < 0;
  if (sign == "<=") return order <= 0;
  if (sign == ">") return order > 0;
  return order >= 0;
}

Values items_of(const Value& value, Work& work) {
  Values items;
  if (value.is_text()) {
    for (const std::string_view character : characters(value.text())) items.emplace_back(character);
  } else if (const Dict* dict = value.dict()) {
    for (const auto& entry : dict->entries) items.push_back(entry.first);
  } else if (Sequence* sequence = value.sequence()) {
    if (sequence->taken) work.refuse("a generator that is read twice (|list keeps what it gives)");
    if (sequence->kind == SequenceKind::kGenerator) sequence->taken = true;
    items = sequence->items;
  } else if (value.loop() != nullptr) {
    work.refuse("the items of a loop");
  } else if (!value.is_undefined()) {
    work.fail("what has items", kind_of(value));
  }
  work.spend(items.size() * sizeof(Value));
  return items;
}

int64_t length_of(const Value& value, Work& work) {
  if (value.is_undefined()) return 0;
  if (value.is_text()) {
    work.spend(value.text().size());
    return static_cast<int64_t>(length(value.text()));
  }
  if (const Dict* dict = value.dict()) return std::ssize(dict->entries);
  if (const Loop* loop = value.loop()) return std::ssize(*loop->items);
  const Sequence* sequence = value.sequence();
  if (sequence == nullptr || sequence->kind == SequenceKind::kGenerator) {
    work.fail("what has a length", kind_of(value));
  }
  return std::ssize(sequence->items);
}

Value subscript(const Value& value, const Value& key, Work& work) {
  if (value.is_undefined()) work.fail("a value with parts", kind_of(value));
  if (auto item = item_at(value, key, work)) return *std::move(item);
  if (!key.is_text()) return Undefined{};
  return attribute(value, key.text(), work);
}

Value slice(const Value& value, const Value& from, const Value& to, const Value& step, Work& work) {
  if (value.is_undefined()) work.fail("a value with parts", kind_of(value));
  const int64_t stride = bound(step, work).value_or(1);
  if (stride == 0) work.fail("steps of a slice", "0");
  const auto begin = bound(from, work), end = bound(to, work);
  if (value.is_text()) {
    const auto all = characters(value.text());
    std::string result;
    for (const size_t at : places(std::ssize(all), begin, end, stride)) result += all[at];
    work.spend(value.text().size());
    return result;
  }
  const Sequence* sequence = value.sequence();
  if (sequence == nullptr || sequence->kind > SequenceKind::kRange) {
    work.refuse("a slice of " + kind_of(value));  // undefined for a constant, else an error
  }
  Values items;
  for (const size_t at : places(std::ssize(sequence->items), begin, end, stride)) {
    items.push_back(sequence->items[at]);
  }
  return make_sequence(sequence->kind, std::move(items), work);
}

}  // namespace wavroute::chat
