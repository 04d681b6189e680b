#include "validators.h"

#include <fmt/format.h>

#include <charconv>
#include <string>

namespace wavroute::app {
namespace {

// The whole of `text` as a T; false for anything else, and for what T can't hold.
template <typename T>
bool parse(const std::string& text, T& value) {
  const char* begin = text.data() + (text.starts_with('+') ? 1 : 0);
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(begin, end, value);
  return error == std::errc() && stop == end && begin != end;
}

template <typename T>
CLI::Validator range(const char* kind, T low, T high) {
  const std::string expected = high == std::numeric_limits<T>::max()
                                   ? fmt::format("{} of at least {}", kind, low)
                                   : fmt::format("{} from {} to {}", kind, low, high);
  return CLI::Validator(
      [=](const std::string& text) {
        T value{};
        if (parse(text, value) && value >= low && value <= high) return std::string();
        return fmt::format("expected {}, given '{}'", expected, text);
      },
      /*description=*/"");
}

}  // namespace

CLI::Validator integer_from(int64_t low, int64_t high) { return range("an integer", low, high); }
CLI::Validator number_from(double low, double high) { return range("a number", low, high); }

}  // namespace wavroute::app
