#include "report/run_settings.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "config/document.h"
#include "config/fields.h"
#include "config/literal.h"
#include "config/print.h"

namespace wavroute {
namespace {

constexpr std::string_view kHash = "sha256:";
constexpr size_t kShownDigits = 8;

constexpr std::array<std::string_view, 11> kNeutral = {"name",
                                                       "train.seed",
                                                       "train.log_every",
                                                       "train.log_layers",
                                                       "train.eval_every",
                                                       "train.save_every",
                                                       "train.keep",
                                                       "train.threads",
                                                       "train.sinks",
                                                       "train.micro_batch",
                                                       "train.recompute"};

// "1" for 1.0: a file that was written by hand may spell a number either way.
std::string canonical(std::string value) {
  if (value.ends_with(".0") && value.find_first_not_of("-0123456789.") == std::string::npos) {
    value.resize(value.size() - 2);
  }
  return value;
}

std::string value_of(const Node& node) {
  if (std::holds_alternative<Node::Date>(node.value)) return "?";
  if (const auto* items = node.array()) {
    std::string text;
    for (const Node& item : *items) text += (text.empty() ? "" : ", ") + value_of(item);
    return "[" + text + "]";
  }
  return canonical(literal(node));
}

// What a measure knows and another doesn't may be the same.
std::string unlike(const std::string& what, bool is_open) {
  return is_open ? what + " not known" : "another " + what;
}

}  // namespace

bool changes_results(std::string_view key) {
  return !key.starts_with("compare.") && !key.starts_with("sample.") &&
         std::ranges::find(kNeutral, key) == kNeutral.end();
}

RunConfig read_run_config(const std::string& text, const std::string& file) {
  RunConfig result;
  const auto put = [&](const std::string& key, std::string value) {
    if (changes_results(key)) result.settings[key] = std::move(value);
  };
  for (const Setting& setting : settings(Config{})) {
    put(dotted(setting.section, setting.key), canonical(setting.value));
  }
  const Node document = parse_document(text, file);
  for (const NodeMember& member : *document.table()) {
    const auto* section = member.value.table();
    if (section == nullptr) {
      put(member.key, value_of(member.value));
      continue;
    }
    for (const NodeMember& entry : *section) {
      const std::string key = dotted(member.key, entry.key);
      put(key, value_of(entry.value));
      const auto* whole = std::get_if<int64_t>(&entry.value.value);
      if (key == "train.seed" && whole != nullptr) result.seed = *whole;
      if (key == "train.steps" && whole != nullptr) result.steps = *whole;
    }
  }
  return result;
}

std::vector<std::string> unplanned_keys(const RunSettings& planned, const RunSettings& run) {
  constexpr std::array<std::string_view, 3> kTexts = {"data.train", "data.valid", "train.init"};
  constexpr std::array<std::string_view, 2> kFollow = {"model.kv_heads", "model.hidden"};
  std::vector<std::string> keys;
  for (const auto& [key, value] : planned) {
    const bool is_open =
        value == "\"auto\"" || (value == "0" && std::ranges::find(kFollow, key) != kFollow.end());
    if (is_open || std::ranges::find(kTexts, key) != kTexts.end()) continue;
    const auto found = run.find(key);
    if (found == run.end() || found->second == value) continue;
    // A folder of prepared text has its own tokenizer, which the run names.
    const bool is_folders = key == "data.tokenizer" && value == "\"bytes\"" &&
                            found->second.find_first_of("/ ") != std::string::npos;
    if (!is_folders) keys.push_back(key);
  }
  if (run.contains(kScheduleSteps)) keys.emplace_back(kScheduleSteps);
  return keys;
}

void identify_texts(RunSettings& settings, const std::string& train_sha256,
                    const std::string& valid_sha256) {
  if (settings.empty() || train_sha256.empty() || valid_sha256.empty()) return;
  settings["data.train"] = std::string(kHash) + train_sha256;
  settings["data.valid"] = std::string(kHash) + valid_sha256;
  settings.erase("data.max_bytes");  // the hash is of what was left
  // Of the same bytes as raw ids, the tokens are others.
  const std::string format = shown_value(settings["data.format"]);
  if (format != "tokens16" && format != "tokens32") settings.erase("data.format");
}

void identify_weights(RunSettings& settings, const std::string& init_sha256) {
  if (!settings.empty() && !init_sha256.empty()) {
    settings["train.init"] = std::string(kHash) + init_sha256;
  }
}

std::string shown_value(const std::string& value) {
  if (value.starts_with(kHash)) {
    return "text " + value.substr(kHash.size(), kShownDigits);
  }
  const bool quoted = value.size() >= 2 && value.front() == '"' && value.back() == '"';
  return quoted ? value.substr(1, value.size() - 2) : value;
}

std::string why_no_difference(const Measure& a, const Measure& b) {
  if (a.valid_text != b.valid_text) {
    return unlike("validation text", a.valid_text.empty() || b.valid_text.empty());
  }
  if (a.tokenizer != b.tokenizer) {
    return unlike("tokenizer", a.tokenizer.empty() || b.tokenizer.empty());
  }
  if (a.context != b.context) return unlike("context", !a.context || !b.context);
  const bool counted = a.tokens.has_value() && b.tokens.has_value();
  if (counted ? a.tokens != b.tokens : a.max_tokens != b.max_tokens) {
    return "another number of scored tokens";
  }
  if (a.train_text != b.train_text) {
    return unlike("training text", a.train_text.empty() || b.train_text.empty());
  }
  return {};
}

bool same_bytes_scored(const Measure& a, const Measure& b) {
  if (a.valid_text.empty() || a.valid_text != b.valid_text) return false;
  if (a.bytes && b.bytes) {
    // The first token is not scored, and tokenizers begin with pieces of different lengths.
    constexpr double kFirstToken = 1e-3;
    const auto x = static_cast<double>(*a.bytes), y = static_cast<double>(*b.bytes);
    return std::abs(x - y) <= kFirstToken * std::max(x, y);
  }
  return a.tokenizer == b.tokenizer && a.max_tokens == b.max_tokens && a.tokens == b.tokens;
}

}  // namespace wavroute
