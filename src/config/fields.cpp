#include "config/fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <type_traits>
#include <utility>

namespace wavroute {
namespace {

template <auto Section, auto Member>
Slot slot(Config& config) {
  return &(config.*Section.*Member);
}

// A key that takes a word: all words of its enumeration, or only `words`.
template <auto Section, auto Member>
Field choice(const char* section, const char* key, std::vector<std::string> words = {}) {
  using Value = std::remove_cvref_t<decltype(std::declval<Config>().*Section.*Member)>;
  if (words.empty()) {
    if constexpr (requires { typename Value::value_type; }) {
      words = {"auto"};
      for (const auto word : words_of(typename Value::value_type{})) words.emplace_back(word);
    } else {
      for (const auto word : words_of(Value{})) words.emplace_back(word);
    }
  }
  const auto slot = [](Config& config) -> Slot { return ChoiceSlot(&(config.*Section.*Member)); };
  return {section, key, slot, {}, std::move(words)};
}

Slot name_slot(Config& config) { return &config.name; }

Slot tokenizer_slot(Config& config) {
  DataConfig& data = config.data;
  return ChoiceSlot::with_path<TokenizerKind, TokenizerKind::kFile>(&data.tokenizer,
                                                                    &data.tokenizer_path);
}

Range at_least(double low) { return {.low = low}; }
Range above(double low) { return {.low = low, .low_open = true}; }
Range between(double low, double high) { return {.low = low, .high = high}; }

// Sizes stay below 2^31, so that products of two of them can't overflow 64 bits.
constexpr double kSizeLimit = 2147483647;
Range size() { return between(1, kSizeLimit); }
Range size_or_zero() { return between(0, kSizeLimit); }
Range fraction() { return between(0, 1); }

std::vector<Field> model_fields() {
  using C = Config;
  using M = ModelConfig;
  return {
      // Their values are find_model_fault's to judge (model_size.h).
      {"model", "layers", slot<&C::model, &M::layers>},
      {"model", "width", slot<&C::model, &M::width>},
      {"model", "heads", slot<&C::model, &M::heads>},
      {"model", "kv_heads", slot<&C::model, &M::kv_heads>},
      {"model", "head_dim", slot<&C::model, &M::head_dim>},
      {"model", "hidden", slot<&C::model, &M::hidden>},
      {"model", "context", slot<&C::model, &M::context>},
      {"model", "tie_embeddings", slot<&C::model, &M::tie_embeddings>},
      {"model", "rms_norm_eps", slot<&C::model, &M::rms_norm_eps>},
      {"model", "rope_theta", slot<&C::model, &M::rope_theta>},
      {"model", "rope_scaling", slot<&C::model, &M::rope_scaling>},
      {"model", "attention_bias", slot<&C::model, &M::attention_bias>},
      {"model", "output_init", slot<&C::model, &M::output_init>, at_least(0)},
      {"residual", "scheme", slot<&C::residual, &ResidualConfig::scheme>},
  };
}

std::vector<Field> data_fields() {
  using C = Config;
  using D = DataConfig;
  return {
      {.section = "data", .key = "train", .slot = slot<&C::data, &D::train>, .is_path = true},
      {.section = "data", .key = "valid", .slot = slot<&C::data, &D::valid>, .is_path = true},
      choice<&C::data, &D::format>("data", "format"),
      {.section = "data",
       .key = "tokenizer",
       .slot = tokenizer_slot,
       .choices = {"bytes", "chars"},
       .is_path = true},
      choice<&C::data, &D::unknown>("data", "unknown"),
      {"data", "eval_tokens", slot<&C::data, &D::eval_tokens>, at_least(1)},
      {"data", "max_bytes", slot<&C::data, &D::max_bytes>, at_least(0)},
  };
}

std::vector<Field> optimizer_fields() {
  using C = Config;
  using O = OptimizerConfig;
  using S = ScheduleConfig;
  const Range beta = {.low = 0, .high = 1, .high_open = true};
  return {
      choice<&C::optimizer, &O::name>("optimizer", "name"),
      {"optimizer", "lr", slot<&C::optimizer, &O::lr>, above(0)},
      {"optimizer", "betas", slot<&C::optimizer, &O::betas>, beta},
      {"optimizer", "eps", slot<&C::optimizer, &O::eps>, above(0)},
      {"optimizer", "weight_decay", slot<&C::optimizer, &O::weight_decay>, at_least(0)},
      {"optimizer", "clip", slot<&C::optimizer, &O::clip>, at_least(0)},
      choice<&C::schedule, &S::name>("schedule", "name"),
      {"schedule", "warmup", slot<&C::schedule, &S::warmup>, fraction()},
      {"schedule", "final", slot<&C::schedule, &S::final>, fraction()},
      {"schedule", "decay", slot<&C::schedule, &S::decay>, fraction()},
  };
}

std::vector<Field> train_fields() {
  using C = Config;
  using T = TrainConfig;
  return {
      {"train", "steps", slot<&C::train, &T::steps>, size()},
      {"train", "batch", slot<&C::train, &T::batch>, size()},
      {"train", "micro_batch", slot<&C::train, &T::micro_batch>, size_or_zero()},
      choice<&C::train, &T::recompute>("train", "recompute"),
      {"train", "seed", slot<&C::train, &T::seed>, at_least(0)},
      {.section = "train", .key = "init", .slot = slot<&C::train, &T::init>, .is_path = true},
      {"train", "log_every", slot<&C::train, &T::log_every>, size_or_zero()},
      {"train", "log_layers", slot<&C::train, &T::log_layers>, size_or_zero()},
      {"train", "eval_every", slot<&C::train, &T::eval_every>, size_or_zero()},
      {"train", "save_every", slot<&C::train, &T::save_every>, size_or_zero()},
      {"train", "keep", slot<&C::train, &T::keep>, size()},
      choice<&C::train, &T::precision>("train", "precision", {"auto", "bf16", "fp32"}),
      choice<&C::train, &T::kernels>("train", "kernels"),
      choice<&C::train, &T::device>("train", "device"),
      {"train", "deterministic", slot<&C::train, &T::deterministic>},
      {"train", "threads", slot<&C::train, &T::threads>, size_or_zero()},
      {"train", "sinks", slot<&C::train, &T::sinks>},
  };
}

std::vector<Field> sample_and_compare_fields() {
  using C = Config;
  using S = SampleConfig;
  using P = CompareConfig;
  const Range probability = {.low = 0, .high = 1, .low_open = true};
  return {
      {"sample", "prompt", slot<&C::sample, &S::prompt>},
      {"sample", "tokens", slot<&C::sample, &S::tokens>, size_or_zero()},
      {"sample", "temperature", slot<&C::sample, &S::temperature>, at_least(0)},
      {"sample", "top_k", slot<&C::sample, &S::top_k>, size_or_zero()},
      {"sample", "top_p", slot<&C::sample, &S::top_p>, probability},
      {"compare", "schemes", slot<&C::compare, &P::schemes>},
      {"compare", "depths", slot<&C::compare, &P::depths>, size()},
      {"compare", "seeds", slot<&C::compare, &P::seeds>, at_least(0)},
      {"compare", "last", slot<&C::compare, &P::last>, size()},
      {"compare", "target_loss", slot<&C::compare, &P::target_loss>, above(0)},
      {"compare", "budgets", slot<&C::compare, &P::budgets>, above(0)},
      {"compare", "lrs", slot<&C::compare, &P::lrs>, above(0)},
      {"compare", "wider_baseline", slot<&C::compare, &P::wider_baseline>},
      {"compare", "jobs", slot<&C::compare, &P::jobs>, size()},
  };
}

std::vector<Field> all_fields() {
  std::vector<Field> all = {{"", "name", name_slot}};
  for (const auto& part : {model_fields(), data_fields(), optimizer_fields(), train_fields(),
                           sample_and_compare_fields()}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

}  // namespace

bool Range::contains(double value) const {
  const bool above_low = low_open ? value > low : value >= low;
  const bool below_high = high_open ? value < high : value <= high;
  return above_low && below_high;  // false for a NaN
}

std::string Range::text() const {
  std::string text;
  if (low > std::numeric_limits<double>::lowest()) {
    text = fmt::format("{} {}", low_open ? ">" : ">=", low);
  }
  if (high < std::numeric_limits<double>::max()) {
    text += fmt::format("{}{} {}", text.empty() ? "" : " and ", high_open ? "<" : "<=", high);
  }
  return text.empty() ? "finite" : text;
}

const std::vector<Field>& fields() {
  static const std::vector<Field> all = all_fields();
  return all;
}

const Field* find_field(std::string_view section, std::string_view key) {
  const auto found = std::find_if(fields().begin(), fields().end(), [&](const Field& field) {
    return field.section == section && field.key == key;
  });
  return found == fields().end() ? nullptr : &*found;
}

std::string dotted(std::string_view section, std::string_view key) {
  return section.empty() ? std::string(key) : fmt::format("{}.{}", section, key);
}

std::vector<std::string> section_names() {
  std::vector<std::string> names;
  for (const Field& field : fields()) {
    const bool known = std::find(names.begin(), names.end(), field.section) != names.end();
    if (!field.section.empty() && !known) names.push_back(field.section);
  }
  return names;
}

std::string path_or_word(const Field& field, Config& config) {
  const Slot slot = field.slot(config);
  if (const auto* choice = std::get_if<ChoiceSlot>(&slot)) return choice->word();
  return *std::get<std::string*>(slot);
}

std::vector<std::string> keys_of(std::string_view section) {
  std::vector<std::string> keys;
  for (const Field& field : fields()) {
    if (field.section == section) keys.push_back(field.key);
  }
  if (section == "compare") keys.emplace_back("variant");
  return keys;
}

}  // namespace wavroute
