// The table of all keys: where each is stored in Config, and which values it may have.
// The keys of [residual] other than `scheme` are not here: they belong to the schemes.
#pragma once

#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "wavroute/config.h"

namespace wavroute {

// A value of an enumeration, or an optional one, behind the word that stands for it (choices.h).
class ChoiceSlot {
 public:
  template <typename Choice>
  explicit ChoiceSlot(Choice* value)
      : value_(value),
        word_([](const void* at) { return to_string(*static_cast<const Choice*>(at)); }),
        choose_([](void* at, std::string_view word) { take(*static_cast<Choice*>(at), word); }) {}

  [[nodiscard]] std::string word() const { return word_(value_); }
  // `word` is one of the field's choices.
  void choose(std::string_view word) const { choose_(value_, word); }

 private:
  template <typename Choice>
  static void take(Choice& value, std::string_view word) {
    value = find_choice<Choice>(word).value();
  }
  template <typename Choice>
  static void take(std::optional<Choice>& value, std::string_view word) {
    value = find_choice<Choice>(word);  // "auto" is none of its words
  }

  void* value_;
  std::string (*word_)(const void* value);
  void (*choose_)(void* value, std::string_view word);
};

// Where a key's value is kept. An optional number is "auto" where it has no value.
using Slot = std::variant<bool*, int64_t*, double*, std::string*, std::vector<double>*,
                          std::vector<int64_t>*, std::vector<std::string>*, std::optional<double>*,
                          ChoiceSlot>;

// The numbers that a key accepts; every item of a list must be within it. Never an infinity.
struct Range {
  double low = std::numeric_limits<double>::lowest();
  double high = std::numeric_limits<double>::max();
  bool low_open = false;   // low itself is excluded
  bool high_open = false;  // high itself is excluded
  [[nodiscard]] bool contains(double value) const;
  [[nodiscard]] std::string text() const;  // "an integer >= 1" without the noun: ">= 1"
};

struct Field {
  std::string section;  // empty: a key above all sections
  std::string key;
  Slot (*slot)(Config&);
  Range range = {};
  std::vector<std::string> choices = {};  // the words of a ChoiceSlot, in the order of messages
  bool is_path = false;                   // a file, or the word "torch-source"
};

[[nodiscard]] const std::vector<Field>& fields();
[[nodiscard]] const Field* find_field(std::string_view section, std::string_view key);
// "train.steps"; a key above all sections has no prefix.
[[nodiscard]] std::string dotted(std::string_view section, std::string_view key);
// In the order of the file that to_toml writes, without the part above all sections.
[[nodiscard]] std::vector<std::string> section_names();
[[nodiscard]] std::vector<std::string> keys_of(std::string_view section);

}  // namespace wavroute
