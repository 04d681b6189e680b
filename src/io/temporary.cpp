// Names of temporary files, and the removal of those whose process was killed.
#include <fmt/format.h>

#include <atomic>
#include <charconv>
#include <optional>
#include <string>
#include <vector>

#include "base/utf8.h"
#include "io/file.h"
#include "io/process_identity.h"
#include "wavroute/error.h"

namespace wavroute {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kPrefix = ".wavroute-tmp-";
// With the longest suffix a name stays below 143 bytes, which is all that some file systems take.
constexpr size_t kLongestLabel = 48;

// The part of a label that a name has room for.
std::string_view cut_label(std::string_view label) {
  return label.substr(0, utf8_boundary(label, kLongestLabel));
}

struct Temporary {
  std::string_view label;
  ProcessIdentity maker;
};

// LABEL-PLACE-PID-START-COUNT after the prefix; nothing for any other form.
std::optional<Temporary> parse(std::string_view name) {
  if (!name.starts_with(kPrefix)) return std::nullopt;
  name.remove_prefix(kPrefix.size());
  size_t begin = name.size();  // of the last four parts
  std::string_view count;
  for (int part = 0; part < 4; ++part) {
    const size_t dash = begin == 0 ? name.npos : name.rfind('-', begin - 1);
    if (dash == name.npos) return std::nullopt;
    if (part == 0) count = name.substr(dash + 1);
    begin = dash;
  }
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(count.data(), count.data() + count.size(), number);
  if (error != std::errc() || end != count.data() + count.size()) return std::nullopt;
  const std::string_view maker = name.substr(begin + 1, name.size() - begin - count.size() - 2);
  Temporary temporary{name.substr(0, begin), ProcessIdentity::parse(maker)};
  if (temporary.label.empty() || temporary.maker.pid <= 0) return std::nullopt;
  return temporary;
}

}  // namespace

std::string temporary_name(std::string_view label) {
  static std::atomic<uint64_t> count = 0;
  return fmt::format("{}{}-{}-{}", kPrefix, cut_label(label), this_process().text(), count++);
}

std::vector<fs::path> remove_stale_temporaries(const fs::path& folder, std::string_view label) {
  std::vector<fs::path> left;
  for (const std::string& name : list_folder(folder)) {
    const auto temporary = parse(name);
    if (!temporary || (!label.empty() && temporary->label != cut_label(label))) continue;
    if (is_known_dead(temporary->maker)) {
      try {
        remove_tree(folder / name);
      } catch (const Error&) {
        left.push_back(folder / name);
      }
    } else if (temporary->maker.place != this_process().place) {
      left.push_back(folder / name);
    }
  }
  return left;
}

}  // namespace wavroute
