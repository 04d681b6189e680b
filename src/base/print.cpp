#include "base/print.h"

#include <stdio_ext.h>

namespace wavroute {

bool print_or_drop(std::FILE* stream, std::string_view text) noexcept {
  const bool written = std::fwrite(text.data(), 1, text.size(), stream) == text.size();
  const bool flushed = std::fflush(stream) == 0;
  if (written && flushed) return true;
  // Left there, the text and the mark would make every later line look lost, too.
  __fpurge(stream);
  std::clearerr(stream);
  return false;
}

}  // namespace wavroute
