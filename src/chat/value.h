// The values of a template: Python's, as far as chat templates use them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "chat/work.h"

namespace wavroute::chat {

class Value;
using Values = std::vector<Value>;

enum class SequenceKind : uint8_t { kList, kTuple, kRange, kKeys, kValues, kItems, kGenerator };

// Lists and what else has items in an order. A generator, what map() and the like give, can be read
// once.
struct Sequence {
  SequenceKind kind;
  Values items;
  size_t depth;        // levels of containers in it, itself included
  bool taken = false;  // a generator that was read
};

struct Dict {
  std::vector<std::pair<Value, Value>> entries;  // in the order in which they were made
  size_t depth = 1;

  [[nodiscard]] const Value* find(std::string_view key) const;
};

struct Namespace {
  std::map<std::string, Value, std::less<>> attributes;
};

// The variable `loop` inside a for.
struct Loop {
  std::shared_ptr<const Values> items;
  size_t index0 = 0;
};

// A global function, or a method of `self`.
struct Function {
  std::string name;
  std::shared_ptr<const Value> self;  // null: a global
};

// None, and what no variable is: prints as nothing, and most of what is done with it fails.
struct None {};
struct Undefined {
  std::shared_ptr<const std::string> name;  // for messages; may be null
};

class Value {
 public:
  using Text = std::shared_ptr<const std::string>;
  using Any = std::variant<Undefined, None, bool, int64_t, double, Text, std::shared_ptr<Sequence>,
                           std::shared_ptr<const Dict>, std::shared_ptr<Namespace>,
                           std::shared_ptr<const Loop>, std::shared_ptr<const Function>>;

  Value() : any_(Undefined{}) {}
  // NOLINTBEGIN(google-explicit-constructor): a value is made of what it holds
  Value(None none) : any_(none) {}
  Value(Undefined undefined) : any_(std::move(undefined)) {}
  Value(bool flag) : any_(flag) {}
  Value(int64_t number) : any_(number) {}
  Value(double number) : any_(number) {}
  Value(std::string text) : any_(std::make_shared<const std::string>(std::move(text))) {}
  Value(std::string_view text) : Value(std::string(text)) {}
  Value(const char* text) : Value(std::string(text)) {}
  Value(std::shared_ptr<Sequence> sequence) : any_(std::move(sequence)) {}
  Value(std::shared_ptr<const Dict> dict) : any_(std::move(dict)) {}
  Value(std::shared_ptr<Namespace> names) : any_(std::move(names)) {}
  Value(std::shared_ptr<const Loop> loop) : any_(std::move(loop)) {}
  Value(std::shared_ptr<const Function> function) : any_(std::move(function)) {}
  // NOLINTEND(google-explicit-constructor)

  template <typename Type>
  [[nodiscard]] bool is() const {
    return std::holds_alternative<Type>(any_);
  }
  [[nodiscard]] bool is_undefined() const { return is<Undefined>(); }
  [[nodiscard]] bool is_none() const { return is<None>(); }
  [[nodiscard]] bool is_text() const { return is<Text>(); }
  // An int or a bool, which counts as one.
  [[nodiscard]] bool is_integer() const { return is<int64_t>() || is<bool>(); }
  [[nodiscard]] bool is_number() const { return is_integer() || is<double>(); }
  [[nodiscard]] bool is_sequence(SequenceKind kind) const;

  [[nodiscard]] const std::string& text() const { return *std::get<Text>(any_); }
  [[nodiscard]] int64_t integer() const;
  [[nodiscard]] double number() const;
  [[nodiscard]] const Any& any() const { return any_; }

  // Null where it is of another type.
  [[nodiscard]] Sequence* sequence() const;
  [[nodiscard]] const Dict* dict() const;
  [[nodiscard]] Namespace* names() const;
  [[nodiscard]] const Loop* loop() const;
  [[nodiscard]] const Function* function() const;

 private:
  Any any_;
};

// "a list", for messages; of an undefined value, "'name', which is undefined".
[[nodiscard]] std::string kind_of(const Value& value);

[[nodiscard]] bool is_true(const Value& value);

// Each item must be plain data: a namespace, a loop or a function in a container is refused, so
// that no value can contain itself.
[[nodiscard]] Value make_sequence(SequenceKind kind, Values items, Work& work);
[[nodiscard]] Value make_list(Values items, Work& work);
// A key that comes again replaces the value. UserError for keys that can't be compared by hash.
[[nodiscard]] Value make_dict(std::vector<std::pair<Value, Value>> entries, Work& work);
[[nodiscard]] Value make_function(std::string name);
[[nodiscard]] Value make_method(std::string name, Value self);
// `names`.`name` = `value`.
void set_attribute(Namespace& names, const std::string& name, Value value, Work& work);

[[nodiscard]] Value from_json(const nlohmann::ordered_json& json, Work& work);

}  // namespace wavroute::chat
