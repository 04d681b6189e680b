#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/printable.h"
#include "config/draft.h"
#include "config/literal.h"
#include "config/model_size.h"
#include "config/sinks.h"
#include "config/suggest.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using Places = std::map<std::string, Place>;

// Fails, at the place of the first of `keys` that was given a value.
[[noreturn]] void fail(const Places& places, const std::vector<std::string>& keys,
                       const std::string& expected, const std::string& given,
                       const std::string& hint = {}) {
  std::string where = "the defaults";
  for (const std::string& key : keys) {
    const auto found = places.find(key);
    if (found == places.end()) continue;
    where = found->second.where;
    break;
  }
  throw wavroute::expected(expected, given, where, hint);
}

void check_model(const ModelConfig& model, const Places& places) {
  const auto fault = find_model_fault(model, /*vocab_size=*/1, kConfigurationKeys);
  if (fault) fail(places, fault->keys, fault->expected, fault->given, fault->hint);
}

void check_training(const Config& config, const Places& places) {
  if (config.optimizer.betas.size() != 2) {
    fail(places, {"optimizer.betas"}, "two betas", literal(config.optimizer.betas),
         "for instance betas = [0.9, 0.95]");
  }
  const ScheduleConfig& schedule = config.schedule;
  if (schedule.name == ScheduleKind::kWsd && schedule.warmup + schedule.decay > 1.0) {
    fail(places, {"schedule.decay", "schedule.warmup"}, "warmup + decay <= 1",
         fmt::format("{} + {}", schedule.warmup, schedule.decay),
         "both are fractions of the steps");
  }
  const TrainConfig& train = config.train;
  if (train.micro_batch > train.batch) {
    fail(places, {"train.micro_batch", "train.batch"}, "a micro_batch within the batch",
         fmt::format("micro_batch {} and batch {}", train.micro_batch, train.batch),
         "micro_batch = 0 takes the largest that fits");
  }
}

template <typename Item>
void check_unique(std::vector<Item> items, const Places& places, const std::string& key) {
  std::sort(items.begin(), items.end());
  const auto twice = std::adjacent_find(items.begin(), items.end());
  if (twice == items.end()) return;
  fail(places, {key}, fmt::format("each item of {} once", key),
       fmt::format("{} twice", literal(*twice)));
}

// Whether a file system takes this as the name of a folder, with room for a suffix.
bool is_folder_name(std::string_view name, size_t most) {
  const bool has_control = std::any_of(name.begin(), name.end(), [](char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == 0x7F;
  });
  return !name.empty() && name != "." && name != ".." && name.size() <= most && !has_control &&
         name.find('/') == std::string_view::npos;
}

constexpr size_t kLongestName = 255;  // bytes: what file systems take
constexpr size_t kLongestLabel =
    100;  // bytes: depth, seed and the suffix of a temporary file follow

// A label becomes the name of its runs and a part of their folders' names.
void check_label(const std::string& label, const Places& places) {
  if (is_folder_name(label, kLongestLabel)) return;
  fail(places, {"compare.variant"},
       fmt::format("a label that a folder can be named after, of at most {} bytes", kLongestLabel),
       printable(label), "without '/' and control characters, and neither \".\" nor \"..\"");
}

void check_sinks(const std::vector<std::string>& sinks, const Places& places) {
  const std::vector<std::string> known = sink_names();
  for (const std::string& sink : sinks) {
    if (std::find(known.begin(), known.end(), sink) != known.end()) continue;
    fail(places, {"train.sinks"}, "the names of sinks in train.sinks", literal(sink),
         suggestion(sink, known, "the sinks"));
  }
  check_unique(sinks, places, "train.sinks");
}

void check_comparison(const CompareConfig& compare, const Places& places) {
  check_unique(compare.schemes, places, "compare.schemes");
  check_unique(compare.depths, places, "compare.depths");
  check_unique(compare.seeds, places, "compare.seeds");
  check_unique(compare.budgets, places, "compare.budgets");
  check_unique(compare.lrs, places, "compare.lrs");
  std::vector<std::string> labels = compare.schemes;  // a row of the table is known by its label
  for (const CompareVariant& variant : compare.variants) {
    if (std::find(labels.begin(), labels.end(), variant.label) != labels.end()) {
      fail(places, {"compare.variant"}, "a label that no other row of the comparison has",
           literal(variant.label), "rows are the schemes and the variants");
    }
    check_label(variant.label, places);
    labels.push_back(variant.label);
  }
}

}  // namespace

void check_consistency(const Config& config, const Places& places) {
  const std::string& name = config.name;  // becomes the folder runs/NAME
  if (!is_folder_name(name, kLongestName)) {
    fail(places, {"name"}, "a name that a folder can have", printable(name));
  }
  check_model(config.model, places);
  check_training(config, places);
  check_sinks(config.train.sinks, places);
  check_comparison(config.compare, places);
}

}  // namespace wavroute
