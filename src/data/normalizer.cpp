#include "data/normalizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "data/tokenizer_json.h"
#include "data/unicode_forms.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using nlohmann::json;

constexpr int kDeepest = 8;
constexpr size_t kMostGrowth = 64;  // NFKC's is 11
constexpr std::string_view kPart = "normalizer";
constexpr std::string_view kKinds = "NFC, NFD, NFKC, NFKD, Lowercase, Prepend, Replace or Sequence";

constexpr std::string_view kMark = "\xE2\x96\x81";  // U+2581

size_t most_bytes(size_t given) { return kMostGrowth * (given + kMostGrowth); }

[[noreturn]] void throw_grown(size_t given) {
  throw expected(
      fmt::format("a normalizer that makes a text at most {} times as long", kMostGrowth),
      fmt::format("more than {} bytes from {}", most_bytes(given), given));
}

// `given`: how long the text was before any step.
std::string replace_all(std::string_view text, std::string_view from, std::string_view to,
                        size_t given) {
  std::string replaced;
  replaced.reserve(text.size() + text.size() / 4);
  for (size_t at = 0;;) {
    const size_t found = text.find(from, at);
    replaced += text.substr(at, found - at);
    if (found == std::string_view::npos) return replaced;
    if (replaced.size() + to.size() > most_bytes(given)) throw_grown(given);
    replaced += to;
    at = found + from.size();
  }
}

}  // namespace

Normalizer::Normalizer(const json& json, const std::string& where) {
  if (!json.is_null()) add(json, where, 0);
}

void Normalizer::add(const json& json, const std::string& where, int depth) {
  static constexpr std::array<std::pair<std::string_view, Kind>, 5> kPlain = {
      {{"NFC", Kind::kNfc},
       {"NFD", Kind::kNfd},
       {"NFKC", Kind::kNfkc},
       {"NFKD", Kind::kNfkd},
       {"Lowercase", Kind::kLowercase}}};
  const std::string type = type_of(json, kPart, where);
  if (type == "Sequence" && depth < kDeepest) {
    for (const auto& part : list_of(json, "normalizers", where)) add(part, where, depth + 1);
  } else if (type == "Prepend") {
    steps_.push_back({Kind::kPrepend, text_of(json, "prepend", where), {}});
  } else if (type == "Replace") {
    steps_.push_back({Kind::kReplace, string_pattern(json, "Replace normalizer", where),
                      text_of(json, "content", where)});
  } else {
    const auto* plain =
        std::ranges::find(kPlain, std::string_view(type), &decltype(kPlain)::value_type::first);
    if (plain == kPlain.end()) refuse_kind(kPart, kKinds, type, where);
    steps_.push_back({plain->second, {}, {}});
  }
  check_steps(steps_.size(), kPart, where);
}

std::string Normalizer::apply(std::string_view text, bool is_start) const {
  std::string now(text);
  for (const Step& step : steps_) {
    switch (step.kind) {
      case Kind::kNfc:
        now = normal_form(now, {.is_compatible = false, .is_composed = true});
        break;
      case Kind::kNfd:
        now = normal_form(now, {.is_compatible = false, .is_composed = false});
        break;
      case Kind::kNfkc:
        now = normal_form(now, {.is_compatible = true, .is_composed = true});
        break;
      case Kind::kNfkd:
        now = normal_form(now, {.is_compatible = true, .is_composed = false});
        break;
      case Kind::kLowercase:
        now = lowercase(now);
        break;
      case Kind::kPrepend:
        if (is_start && !now.empty()) now.insert(0, step.text);
        break;
      case Kind::kReplace:
        now = replace_all(now, step.text, step.replacement, text.size());
        break;
    }
    if (now.size() > most_bytes(text.size())) throw_grown(text.size());
  }
  return now;
}

bool Normalizer::can_be_cut() const {
  return std::ranges::all_of(steps_, [](const Step& step) {
    return step.kind != Kind::kReplace || (step.text == " " && step.replacement == kMark);
  });
}

std::string Normalizer::description() const {
  std::string text;
  for (const Step& step : steps_) {
    text += fmt::format("{} {}:{} {}:{};", static_cast<int>(step.kind), step.text.size(), step.text,
                        step.replacement.size(), step.replacement);
  }
  return text;
}

}  // namespace wavroute
