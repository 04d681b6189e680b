// Normal forms and lower case as the library `tokenizers` makes them, by its own versions of
// Unicode (make_unicode_tables.py). Bytes that are not UTF-8 stay as they are.
#pragma once

#include <string>
#include <string_view>

namespace wavroute {

struct NormalForm {
  bool is_compatible;  // NFKC, NFKD
  bool is_composed;    // NFC, NFKC
};

[[nodiscard]] std::string normal_form(std::string_view text, NormalForm form);
// Character by character: no rule looks at a neighbour.
[[nodiscard]] std::string lowercase(std::string_view text);

}  // namespace wavroute
