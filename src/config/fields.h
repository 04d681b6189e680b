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

// A value of an enumeration, or an optional one, behind the word that stands for it (choices.h); or
// a word of an enumeration or else a path.
class ChoiceSlot {
 public:
  template <typename Choice>
  explicit ChoiceSlot(Choice* value)
      : value_(value),
        word_([](const void* at) { return to_string(*static_cast<const Choice*>(at)); }),
        choose_([](void* at, std::string_view word) { take(*static_cast<Choice*>(at), word); }) {}

  // While `value` is `file`, the path stands in the word's place.
  template <typename Choice, Choice file>
  static ChoiceSlot with_path(Choice* value, std::string* path) {
    ChoiceSlot slot(value);
    slot.path_ = path;
    slot.file_ = to_string(file);
    return slot;
  }

  [[nodiscard]] std::string word() const {
    const std::string word = word_(value_);
    return path_ != nullptr && word == file_ ? *path_ : word;
  }
  // `word` is one of the field's choices, or a path where the slot takes one.
  void choose(std::string_view word, bool is_path = false) const {
    choose_(value_, is_path ? file_ : word);
    if (path_ != nullptr) *path_ = is_path ? word : std::string_view();
  }

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
  std::string* path_ = nullptr;
  std::string file_;  // the word that stands for "a path"
  std::string (*word_)(const void* value);
  void (*choose_)(void* value, std::string_view word);
};

// Where a key's value is kept. An optional number is "auto" where it has no value.
using Slot = std::variant<bool*, int64_t*, double*, std::string*, std::vector<double>*,
                          std::vector<int64_t>*, std::vector<std::string>*, std::optional<double>*,
                          std::optional<int64_t>*, ChoiceSlot, RopeScaling*>;

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
  // A file, or the word "torch-source"; for a field with choices, a file or one of these.
  bool is_path = false;
};

[[nodiscard]] const std::vector<Field>& fields();
[[nodiscard]] const Field* find_field(std::string_view section, std::string_view key);
// "train.steps"; a key above all sections has no prefix.
[[nodiscard]] std::string dotted(std::string_view section, std::string_view key);
// In the order of the file that to_toml writes, without the part above all sections.
[[nodiscard]] std::vector<std::string> section_names();
[[nodiscard]] std::vector<std::string> keys_of(std::string_view section);

// The value of a field that may be a path: the path, or the word in its place.
[[nodiscard]] std::string path_or_word(const Field& field, Config& config);

}  // namespace wavroute
