#include "base/nearest.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace wavroute {

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row.back();
}

std::string nearest(std::string_view word, std::span<const std::string> names) {
  const auto found = std::ranges::min_element(
      names, {}, [&](const std::string& name) { return edit_distance(word, name); });
  return found == names.end() ? std::string() : *found;
}

}  // namespace wavroute
