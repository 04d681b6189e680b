// What reading and rendering a template may cost, and its errors, which name the line.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace wavroute::chat {

inline constexpr size_t kMostTemplateBytes = size_t{256} << 10;
inline constexpr size_t kMostNesting = 100;  // of statements, expressions in each other, values
inline constexpr size_t kMostTextBytes = size_t{4} << 20;  // of one text, and of the result
inline constexpr size_t kMostWork = size_t{1} << 25;       // bytes made; an operation counts 64
inline constexpr size_t kOperation = 64;

class Work {
 public:
  // `where` names the template.
  explicit Work(std::string where) : where_(std::move(where)) {}

  // The line that later errors name.
  void set_line(size_t line) { line_ = line; }
  [[nodiscard]] size_t line() const { return line_; }
  // "in line 3 of WHERE"
  [[nodiscard]] std::string place() const;

  // UserError where all that was spent is more than kMostWork.
  void spend(size_t units);
  // Spends a text's bytes. UserError for more than kMostTextBytes.
  void spend_text(size_t bytes);

  // A construct outside the subset, as in "the filter 'indent'".
  [[noreturn]] void refuse(std::string_view construct) const;
  // Where Jinja stops, too.
  [[noreturn]] void fail(std::string_view wanted, const std::string& given) const;
  [[noreturn]] void fail_nesting() const;

 private:
  std::string where_;
  size_t line_ = 1;
  size_t spent_ = 0;
};

}  // namespace wavroute::chat
