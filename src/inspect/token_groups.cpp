#include "inspect/token_groups.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "data/unicode_classes.h"

namespace wavroute {
namespace {

constexpr std::array<std::string_view, 5> kClasses = {"letters", "digits", "punctuation", "spaces",
                                                      "other"};
constexpr int64_t kPositionGroups = 4;
constexpr double kFrequentShare = 0.5, kRareShare = 0.1;

}  // namespace

std::string_view class_of_token(std::string_view bytes) {
  const CharacterReader reader;
  uint8_t seen = 0;
  bool whole = !bytes.empty(), other = false;
  for (const char* at = bytes.data(); at != bytes.data() + bytes.size();) {
    const Character character = reader.read(at, bytes.data() + bytes.size());
    whole = whole && character.is_valid;
    seen |= character.classes;
    other = other || (character.classes & (kLetter | kNumber | kSpace)) == 0;
    at += character.length;
  }
  if ((seen & kLetter) != 0) return "letters";
  if ((seen & kNumber) != 0) return "digits";
  if (!whole) return "other";
  return other ? "punctuation" : "spaces";
}

TokenGroups::TokenGroups(const Tokenizer& tokenizer, const std::vector<int64_t>& counts,
                         int64_t context)
    : class_of_(counts.size()), frequency_of_(counts.size()), context_(context) {
  groups_.push_back({"all", "all"});
  const auto first_class = groups_.size();
  for (const std::string_view name : kClasses) groups_.push_back({"class", std::string(name)});
  for (size_t id = 0; id < counts.size(); ++id) {
    const bool known = static_cast<int64_t>(id) < tokenizer.vocab_size();
    const std::string_view name =
        class_of_token(known ? tokenizer.token_bytes(static_cast<uint32_t>(id)) : "");
    const auto place = std::ranges::find(kClasses, name) - kClasses.begin();
    class_of_[id] = static_cast<uint8_t>(first_class + static_cast<size_t>(place));
  }

  const auto frequent = static_cast<uint8_t>(groups_.size());
  groups_.push_back({"frequency", "frequent"});
  groups_.push_back({"frequency", "rare"});
  std::vector<size_t> order(counts.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, [&](size_t a, size_t b) { return counts[a] > counts[b]; });
  const auto total = static_cast<double>(std::accumulate(counts.begin(), counts.end(), int64_t{0}));
  const auto mark = [&](const auto& ids, uint8_t group, double share, bool beyond) {
    double sum = 0.0;
    for (const size_t id : ids) {
      sum += static_cast<double>(counts[id]);
      if (!beyond && sum > share * total) return;
      frequency_of_[id] = group;
      if (sum >= share * total) return;
    }
  };
  mark(order, frequent, kFrequentShare, /*beyond=*/true);
  std::ranges::reverse(order);
  mark(order, static_cast<uint8_t>(frequent + 1), kRareShare, /*beyond=*/false);

  first_position_ = static_cast<int64_t>(groups_.size());
  position_groups_ = std::min(kPositionGroups, context);
  for (int64_t i = 0; i < position_groups_; ++i) {
    groups_.push_back({"position", fmt::format("{}-{}", i * context / position_groups_,
                                               (i + 1) * context / position_groups_ - 1)});
  }
}

at::Tensor TokenGroups::membership(const at::Tensor& ids, const at::Tensor& counted) const {
  const auto groups = static_cast<int64_t>(groups_.size());
  at::Tensor members = at::zeros({ids.numel(), groups}, at::kDouble);
  const at::Tensor all = ids.contiguous().cpu(), wanted = counted.contiguous().cpu();
  const int64_t* id = all.const_data_ptr<int64_t>();
  const bool* take = wanted.const_data_ptr<bool>();
  double* row = members.mutable_data_ptr<double>();
  for (int64_t i = 0; i < ids.numel(); ++i, row += groups) {
    if (!take[i]) continue;
    const auto token = static_cast<size_t>(id[i]);
    row[0] = 1.0;
    row[class_of_[token]] = 1.0;
    if (frequency_of_[token] != 0) row[frequency_of_[token]] = 1.0;
    const int64_t place = i % ids.size(1);
    int64_t part = place * position_groups_ / context_;
    if ((part + 1) * context_ / position_groups_ <= place) ++part;
    row[first_position_ + std::min(part, position_groups_ - 1)] = 1.0;
  }
  return members;
}

}  // namespace wavroute
