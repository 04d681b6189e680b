#include "config/assignment.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <type_traits>
#include <utility>

#include "config/literal.h"
#include "config/suggest.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

constexpr std::string_view kCorpus = "torch-source";

Place at_line(const Place& file, int line) {
  if (file.is_command_line()) return file;
  const std::string text = fmt::format("{}:{}", file.origin, line);
  return {text, text, file.folder};
}

std::string trimmed(const std::string& text) {
  const size_t first = text.find_first_not_of(" \t");
  if (first == std::string::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

// Refuses a member at the top of a document that is neither a known section nor a known key.
[[noreturn]] void reject_top_level(const NodeMember& member, const Place& place) {
  const std::string_view kind = member.value.table() != nullptr ? "section" : "key";
  std::vector<std::string> known = section_names();
  if (member.value.table() == nullptr) {
    for (const std::string& section : section_names()) {
      if (find_field(section, member.key) == nullptr) continue;
      throw expected("a key that stands above the sections", "'" + member.key + "'", place.where,
                     fmt::format("'{}' belongs in [{}]", member.key, section));
    }
    known = {"name", "extends"};
  }
  throw expected(fmt::format("a known {}", kind),
                 kind == "key" ? "'" + member.key + "'" : "[" + member.key + "]", place.where,
                 suggestion(member.key, known, fmt::format("the {}s here", kind)));
}

[[noreturn]] void reject_key(const Assignment& a) {
  const std::string what =
      expectation(a.section.empty() ? "a known key" : fmt::format("a key of [{}]", a.section),
                  "'" + a.key + "'", a.place.where);
  const auto here = keys_of(a.section);
  if (!near_enough(a.key, here)) {
    for (const std::string& section : section_names()) {
      if (find_field(section, a.key) == nullptr) continue;
      throw UserError(what, fmt::format("'{}' belongs in [{}]", a.key, section));
    }
  }
  throw UserError(what, suggestion(a.key, here, fmt::format("the keys of [{}]", a.section)));
}

// Conversions of a TOML value into a slot; false where the kind is wrong.
template <typename T>
bool read(const Node& node, T& out) {
  const T* value = std::get_if<T>(&node.value);
  if (value != nullptr) out = *value;
  return value != nullptr;
}

bool read(const Node& node, double& out) {
  if (const auto* integer = std::get_if<int64_t>(&node.value)) {
    out = static_cast<double>(*integer);
    return true;
  }
  const auto* number = std::get_if<double>(&node.value);
  if (number != nullptr) out = *number;
  return number != nullptr;
}

template <typename Number>
bool read(const Node& node, std::optional<Number>& out) {
  Number number = 0;
  const bool is_auto = node.string() != nullptr && *node.string() == "auto";
  if (!is_auto && !read(node, number)) return false;
  out = is_auto ? std::nullopt : std::optional(number);
  return true;
}

template <typename Item>
bool read(const Node& node, std::vector<Item>& out) {
  if (node.array() == nullptr) return false;
  std::vector<Item> items;
  for (const Node& child : *node.array()) {
    Item item{};
    if (!read(child, item)) return false;
    items.push_back(std::move(item));
  }
  out = std::move(items);
  return true;
}

// "default", or a table of what the type uses; another key or type in it is a kind of its own.
bool read(const Node& node, RopeScaling& out) {
  RopeScaling result;
  const auto choose = [&](const Node& word) {
    const auto type =
        word.string() == nullptr ? std::nullopt : find_choice<RopeType>(*word.string());
    if (type) result.rope_type = *type;
    return type.has_value();
  };
  if (node.string() != nullptr) {
    if (!choose(node) || result.rope_type != RopeType::kDefault) return false;
    out = result;
    return true;
  }
  if (node.table() == nullptr) return false;
  bool has_type = false;
  for (const NodeMember& member : *node.table()) {
    const std::string& key = member.key;
    const bool fits = key == "rope_type"          ? (has_type = choose(member.value))
                      : key == "factor"           ? read(member.value, result.factor)
                      : key == "low_freq_factor"  ? read(member.value, result.low_freq_factor)
                      : key == "high_freq_factor" ? read(member.value, result.high_freq_factor)
                      : key == "beta_fast"        ? read(member.value, result.beta_fast)
                      : key == "beta_slow"        ? read(member.value, result.beta_slow)
                      : key == "attention_factor" ? read(member.value, result.attention_factor)
                      : key == "truncate"         ? read(member.value, result.truncate)
                      : key == "original_max_position_embeddings"
                          ? read(member.value, result.original_max_position_embeddings)
                          : false;
    if (!fits) return false;
  }
  if (has_type) out = result;
  return has_type;
}

// In the order of Slot.
constexpr std::string_view kExpected[] = {
    "true or false",
    "an integer",
    "a number",
    "a string",
    "a list of numbers",
    "a list of integers",
    "a list of strings",
    "a number or \"auto\"",
    "an integer or \"auto\"",
    "a string",
    ("\"default\" or a table {rope_type = \"linear\", \"llama3\" or \"yarn\", factor = ...} with "
     "the names of Hugging Face's rope_scaling")};

std::string_view given_kind(const Node& node) {
  const bool mixed = node.array() != nullptr && !node.array()->empty();
  return mixed ? "a list of something else" : kind_name(node);
}

void check_range(const Field& field, const Slot& slot, const Assignment& a) {
  const auto check = [&](auto value) {
    if (field.range.contains(static_cast<double>(value))) return;
    throw expected(fmt::format("a value {}", field.range.text()), literal(value), a.about());
  };
  std::visit(
      [&](auto value) {
        using T = std::remove_pointer_t<decltype(value)>;
        if constexpr (std::is_same_v<T, int64_t> || std::is_same_v<T, double>) {
          check(*value);
        } else if constexpr (std::is_same_v<T, std::optional<double>> ||
                             std::is_same_v<T, std::optional<int64_t>>) {
          if (*value) check(**value);
        } else if constexpr (std::is_same_v<T, std::vector<int64_t>> ||
                             std::is_same_v<T, std::vector<double>>) {
          for (const auto item : *value) check(item);
        }
      },
      slot);
}

[[noreturn]] void reject_choice(const Field& field, const std::string& word, const Assignment& a) {
  const auto& choices = field.choices;
  if (field.is_path) {
    throw expected(fmt::format("one of {}, or the path of a file", fmt::join(choices, ", ")),
                   fmt::format("'{}'", word), a.about(),
                   near_enough(word, choices)
                       ? suggestion(word, choices, "the words")
                       : "a path has a folder or an ending: a file here is ./NAME");
  }
  throw expected(fmt::format("one of {}", fmt::join(choices, ", ")), fmt::format("'{}'", word),
                 a.about(), suggestion(word, choices, "the choices"));
}

// "" and the name of the corpus are not paths; every other path becomes absolute. A preset lies in
// no folder: its paths are relative to the current one.
void resolve_path(std::string& path, const Assignment& a) {
  if (path.empty() || path == kCorpus) return;
  const std::filesystem::path folder = a.place.folder.value_or(".");
  path = std::filesystem::absolute(folder / path).lexically_normal().string();
}

// What can only be a path: a word without a folder and an ending is a misspelt choice.
bool looks_like_path(const std::string& word) {
  return word.find('/') != std::string::npos || word.find('.') != std::string::npos;
}

// A word of the field's choices or, where it takes one, a path.
void choose(const Field& field, const ChoiceSlot& slot, const Assignment& a) {
  std::string word = *a.value.string();
  const bool is_choice = std::ranges::find(field.choices, word) != field.choices.end();
  const bool is_path = !is_choice && field.is_path && looks_like_path(word);
  if (!is_choice && !is_path) reject_choice(field, word, a);
  if (is_path) resolve_path(word, a);
  slot.choose(word, is_path);
}

}  // namespace

std::string Assignment::about() const {
  return section.empty() ? fmt::format("for '{}', {}", key, place.where)
                         : fmt::format("for '{}' in [{}], {}", key, section, place.where);
}

std::vector<Assignment> assignments_of(const Node& document, const Place& place) {
  std::vector<Assignment> result;
  const auto sections = section_names();
  for (const NodeMember& member : *document.table()) {
    const Place here = at_line(place, member.value.line);
    const bool is_section =
        std::find(sections.begin(), sections.end(), member.key) != sections.end();
    if (!is_section && find_field("", member.key) == nullptr) reject_top_level(member, here);
    if (!is_section) {
      result.push_back({"", member.key, member.value, here});
      continue;
    }
    if (member.value.table() == nullptr) {
      throw expected("a table", kind_name(member.value),
                     fmt::format("for [{}], {}", member.key, here.where),
                     fmt::format("write [{}] on a line of its own, its keys below", member.key));
    }
    for (const NodeMember& entry : *member.value.table()) {
      result.push_back({member.key, entry.key, entry.value, at_line(place, entry.value.line)});
    }
  }
  return result;
}

Assignment parse_override(const std::string& text, const std::string& prefix,
                          const std::string& origin) {
  const size_t equals = text.find('=');
  const Place place = {origin, prefix + text, std::filesystem::path(".")};
  const std::string key = trimmed(text.substr(0, equals));
  if (equals == std::string::npos || key.empty()) {
    throw expected("section.key=value", fmt::format("'{}'", text), place.where,
                   "for instance --set optimizer.lr=3e-4");
  }
  const Node value = parse_value(trimmed(text.substr(equals + 1)));

  const size_t dot = key.find('.');
  if (dot != std::string::npos) {
    const std::string section = key.substr(0, dot);
    const auto sections = section_names();
    if (std::find(sections.begin(), sections.end(), section) == sections.end()) {
      throw expected("a known section", "[" + section + "]", place.where,
                     suggestion(section, sections, "the sections"));
    }
    return {section, key.substr(dot + 1), value, place};
  }
  if (key == "extends") {
    throw expected("a key of a section", "'extends'", place.where,
                   "`extends` is for files; name the file itself instead");
  }
  if (find_field("", key) == nullptr) reject_top_level({key, Node{int64_t{0}}}, place);
  return {"", key, value, place};
}

void assign(Config& config, const Assignment& a) {
  const Field* field = find_field(a.section, a.key);
  if (field == nullptr) reject_key(a);
  const Slot slot = field->slot(config);
  const auto* choice = std::get_if<ChoiceSlot>(&slot);
  const auto read_slot = [&](auto out) {
    if constexpr (std::is_same_v<decltype(out), ChoiceSlot>) {
      return a.value.string() != nullptr;
    } else {
      return read(a.value, *out);
    }
  };
  if (!std::visit(read_slot, slot)) {
    throw expected(kExpected[slot.index()], given_kind(a.value), a.about());
  }
  check_range(*field, slot, a);
  if (choice != nullptr) {
    choose(*field, *choice, a);
  } else if (field->is_path) {
    resolve_path(*std::get<std::string*>(slot), a);
  }
}

}  // namespace wavroute
