#include "chat/functions.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <ctime>

#include "base/printable.h"
#include "chat/operators.h"

namespace wavroute::chat {
namespace {

constexpr std::array<std::string_view, 5> kFunctions = {"range", "dict", "namespace",
                                                        "raise_exception", "strftime_now"};
// What else may be there in `transformers`: of Jinja, and texts of tokens.
constexpr std::array<std::string_view, 12> kOthers = {
    "lipsum",    "cycler",    "joiner",    "self",      "super",      "caller",
    "unk_token", "sep_token", "pad_token", "cls_token", "mask_token", "additional_special_tokens"};

constexpr int64_t kLongestRange = 100000;  // the sandbox's

Value make_range(const Arguments& arguments, Work& work) {
  const Parameters given(arguments, "range()", {"", "", ""}, 1, work);
  int64_t from = 0, to = given.integer(0, 0);
  if (given.at(1) != nullptr) {
    from = to;
    to = given.integer(1, 0);
  }
  const int64_t step = given.integer(2, 1);
  if (step == 0) work.fail("steps of range()", "0");
  Values items;
  for (int64_t at = from; step > 0 ? at < to : at > to;) {
    if (std::ssize(items) == kLongestRange) {
      work.fail(fmt::format("a range() of at most {} numbers", kLongestRange), "a longer one");
    }
    items.emplace_back(at);
    if (__builtin_add_overflow(at, step, &at)) break;
  }
  return make_sequence(SequenceKind::kRange, std::move(items), work);
}

// What dict() and namespace() take: a dict, and names.
std::vector<std::pair<Value, Value>> entries_of(const Arguments& arguments,
                                                const std::string& callee, Work& work) {
  const Arguments by_place{arguments.by_place, {}};
  const Parameters given(by_place, callee, {""}, 0, work);
  std::vector<std::pair<Value, Value>> entries;
  if (given.at(0) != nullptr) {
    const Dict* dict = given.at(0)->dict();
    if (dict == nullptr) work.refuse(callee + " of " + kind_of(*given.at(0)));
    entries = dict->entries;
  }
  for (const auto& [name, value] : arguments.by_name) entries.emplace_back(Value(name), value);
  return entries;
}

Value make_namespace(const Arguments& arguments, Work& work) {
  auto names = std::make_shared<Namespace>();
  for (auto& [name, value] : entries_of(arguments, "namespace()", work)) {
    if (!name.is_text()) work.refuse("namespace() with " + kind_of(name));
    set_attribute(*names, name.text(), std::move(value), work);
  }
  return names;
}

Value show_time(const Arguments& arguments, std::chrono::system_clock::time_point now, Work& work) {
  const Parameters given(arguments, "strftime_now()", {"format"}, 1, work);
  const std::string& format = given.text(0);
  constexpr std::string_view kLetters = "aAbBdHIjmMpSyY%";  // alike in every version of Python
  for (size_t at = format.find('%'); at < format.size(); at = format.find('%', at + 2)) {
    if (at + 1 == format.size() || kLetters.find(format[at + 1]) == std::string_view::npos) {
      work.refuse("strftime_now(" + printable(format) + ")");
    }
  }
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  std::tm local{};
  localtime_r(&seconds, &local);
  work.spend_text(format.size() * 16);
  std::string result(format.size() * 16 + 1, '\0');
  result.resize(std::strftime(result.data(), result.size(), format.c_str(), &local));
  return result;
}

}  // namespace

std::optional<Value> find_function(std::string_view name, Work& work) {
  if (std::ranges::find(kFunctions, name) != kFunctions.end()) {
    return make_function(std::string(name));
  }
  if (std::ranges::find(kOthers, name) != kOthers.end()) {
    work.refuse("the variable " + printable(name));
  }
  return std::nullopt;
}

Value call_function(std::string_view name, const Arguments& arguments,
                    std::chrono::system_clock::time_point now, Work& work) {
  if (name == "range") return make_range(arguments, work);
  if (name == "dict") return make_dict(entries_of(arguments, "dict()", work), work);
  if (name == "namespace") return make_namespace(arguments, work);
  if (name == "strftime_now") return show_time(arguments, now, work);
  const Parameters given(arguments, "raise_exception()", {"message"}, 1, work);
  const Value& message = *given.at(0);
  work.fail(
      "a conversation that the chat template takes",
      "one that it refuses: " + (message.is_text() ? printable(message.text()) : kind_of(message)));
}

}  // namespace wavroute::chat
