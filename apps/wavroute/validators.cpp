#include "validators.h"

#include <fmt/format.h>

#include <charconv>
#include <string>

namespace wavroute::app {
namespace {

// The whole of `text`; false for anything else, and for what int64_t can't hold.
bool parse(const std::string& text, int64_t& value) {
  const char* begin = text.data() + (text.starts_with('+') ? 1 : 0);
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(begin, end, value);
  return error == std::errc() && stop == end && begin != end;
}

}  // namespace

CLI::Validator integer_from(int64_t low, int64_t high) {
  const std::string expected = high == std::numeric_limits<int64_t>::max()
                                   ? fmt::format("an integer of at least {}", low)
                                   : fmt::format("an integer from {} to {}", low, high);
  return CLI::Validator(
      [=](const std::string& text) {
        int64_t value = 0;
        if (parse(text, value) && value >= low && value <= high) return std::string();
        return fmt::format("expected {}, given '{}'", expected, text);
      },
      /*description=*/"");
}

}  // namespace wavroute::app
