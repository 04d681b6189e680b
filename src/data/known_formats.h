// Files that are not text: known ones by their first bytes, others by what they are made of.
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

// The binary format whose marks `content` begins with; nothing where it is none that is known.
[[nodiscard]] std::optional<NotText> known_format(std::string_view content);

// The same, and besides: content with so many control bytes that it is no text in any encoding
// that we train on, for instance raw token ids.
[[nodiscard]] std::optional<NotText> not_text(std::string_view content);

}  // namespace wavroute
