// Files that are not text: known ones by their first bytes, others by their share of control bytes.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace wavroute {

struct NotText {
  std::string what;  // "gzip data"
  std::string hint;
};

// The binary format whose magic `content` begins with; nothing if it is not a known one.
[[nodiscard]] std::optional<NotText> known_format(std::string_view content);

// The same, and also content with too many control bytes for text in any encoding that we train on,
// for instance raw token ids.
[[nodiscard]] std::optional<NotText> not_text(std::string_view content);

}  // namespace wavroute
